package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/front"
	"gantry/front/selftest"
	"gantry/internal/cluster"
)

const (
	latencyLines = 2000
	latencyEvery = 2 * time.Millisecond
	cancels      = 100
	idleFeeds    = 200
	idleExports  = 10
	smallFile    = "small.img"
)

// feeds measures how long a flushed line takes to the client, and how soon a
// handler learns that the client has left, through each front, idle machine.
func (b *bench) feeds(ctx context.Context) error {
	fmt.Printf("\n### Lines and cancels, %d lines and %d cancels each, ms\n\n", latencyLines, cancels)
	fmt.Println("| front | line p50 | line p99 | line max | cancel p50 | cancel p95 |\n| --- | --- | --- | --- | --- | --- |")
	for _, kind := range front.Kinds {
		if kind != front.EmbeddedServer && !installed(string(kind)) {
			continue
		}
		if err := b.with(ctx, kind, func(c *cluster.Cluster) error {
			cl := c.Client("alpha")
			defer cl.Close()
			lines, err := lineLatency(ctx, cl)
			if err != nil {
				return err
			}
			cancel, err := cancelLatency(ctx, cl)
			if err != nil {
				return err
			}
			fmt.Printf("| %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", kind,
				percentile(lines, .5), percentile(lines, .99), percentile(lines, 1), percentile(cancel, .5), percentile(cancel, .95))
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// with runs fn against a fresh cluster.
func (b *bench) with(ctx context.Context, kind front.Kind, fn func(*cluster.Cluster) error) error {
	dir, err := os.MkdirTemp(b.dir, "c-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	c, err := cluster.New(cluster.Options{Program: b.program, Front: kind, Dir: filepath.Join(dir, "c"), Env: os.Environ()})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.CreateFile("alpha", smallFile, func(f *os.File) error { _, err := f.WriteString("a small file"); return err }); err != nil {
		return err
	}
	if err := c.Start(ctx); err != nil {
		return err
	}
	return fn(c)
}

// lineLatency is the time from before a handler's write to the client's read;
// both read the same clock.
func lineLatency(ctx context.Context, cl *client.Client) ([]float64, error) {
	resp, err := cl.Selftest(ctx, "lines", url.Values{"n": {strconv.Itoa(latencyLines)}, "every": {latencyEvery.String()}}, nil, api.TypeFeed)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var ms []float64
	in := bufio.NewScanner(resp.Body)
	for in.Scan() {
		now := time.Now()
		var l selftest.Line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return nil, err
		}
		ms = append(ms, float64(now.Sub(l.Time))/1e6)
	}
	if len(ms) != latencyLines {
		return nil, fmt.Errorf("%d of %d lines came: %w", len(ms), latencyLines, in.Err())
	}
	return ms, nil
}

// cancelLatency is the time from the client's close to the answer of a second
// request that was waiting for the handler's context to end: the cancel and
// one line of latency.
func cancelLatency(ctx context.Context, cl *client.Client) ([]float64, error) {
	var ms []float64
	for range cancels {
		var id [16]byte
		rand.Read(id[:])
		q := url.Values{"id": {hex.EncodeToString(id[:])}, "mode": {"silent"}}
		working, leave := context.WithCancel(ctx)
		resp, err := cl.Selftest(working, "cancel/start", q, nil, api.TypeFeed)
		if err != nil {
			leave()
			return nil, err
		}
		if _, err := bufio.NewReader(resp.Body).ReadBytes('\n'); err != nil {
			leave()
			return nil, err
		}
		ended := make(chan error, 1)
		var at time.Time
		go func() {
			ask, err := cl.Selftest(ctx, "cancel/ask", url.Values{"id": q["id"], "until": {"ended"}}, nil, api.TypeJSON)
			if err == nil {
				at = time.Now()
				ask.Body.Close()
			}
			ended <- err
		}()
		time.Sleep(20 * time.Millisecond) // the question is under way
		left := time.Now()
		leave()
		resp.Body.Close()
		if err := <-ended; err != nil {
			return nil, err
		}
		ms = append(ms, float64(at.Sub(left))/1e6)
	}
	return ms, nil
}

// memory measures what an idle feed costs the responder and the front: a reader
// of an export that waits. A node runs 16 tasks at once unless told otherwise,
// so the readers share ten exports.
func (b *bench) memory(ctx context.Context) error {
	fmt.Printf("\n### Memory of %d idle feeds (readers of %d exports), KiB per feed\n\n| front | responder | front's processes |\n| --- | --- | --- |\n", idleFeeds, idleExports)
	for _, kind := range front.Kinds {
		if kind != front.EmbeddedServer && !installed(string(kind)) {
			continue
		}
		if err := b.with(ctx, kind, func(c *cluster.Cluster) error {
			responder, server := c.Process("alpha/node").PID, c.Process("alpha/front").PID
			o := observers{c: c}
			defer o.close()
			// Warm: pools, caches, arenas.
			if err := o.start(ctx); err != nil {
				return err
			}
			if err := o.attach(ctx, 2*idleExports); err != nil {
				return err
			}
			r0, f0 := resident(responder), resident(tree(server)...)
			if err := o.attach(ctx, idleFeeds); err != nil {
				return err
			}
			r1, f1 := resident(responder), resident(tree(server)...)
			fmt.Printf("| %s | %.0f | %.0f |\n", kind, (r1-r0)/idleFeeds, (f1-f0)/idleFeeds)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// observers are feeds that are read, each on a connection of its own.
type observers struct {
	c       *cluster.Cluster
	exports []string // task ids
	feeds   []*client.Feed
	clients []*client.Client
}

func (o *observers) start(ctx context.Context) error {
	for range idleExports {
		id := api.NewID()
		cl := o.c.Client("alpha")
		o.clients = append(o.clients, cl)
		f, err := cl.Start(ctx, &api.TaskRequest{ID: id, Op: api.OpExport,
			Args: api.Encode(api.ExportArgs{File: api.File{Resource: cluster.Resource, Path: smallFile}})})
		if err != nil {
			return err
		}
		o.feeds, o.exports = append(o.feeds, f), append(o.exports, id)
	}
	return nil
}

// attach adds n readers, each past its first stored record.
func (o *observers) attach(ctx context.Context, n int) error {
	for i := range n {
		cl := o.c.Client("alpha")
		o.clients = append(o.clients, cl)
		f, err := cl.Attach(ctx, o.exports[i%len(o.exports)], 0)
		if err != nil {
			return err
		}
		o.feeds = append(o.feeds, f)
		for {
			r, err := f.Read()
			if err != nil {
				return err
			}
			if r.Kind == feedback.KindState {
				break
			}
		}
	}
	return nil
}

func (o *observers) close() {
	for _, f := range o.feeds {
		f.Close()
	}
	for _, cl := range o.clients {
		cl.Close()
	}
}

// resident is the sum of the processes' resident memory, KiB.
func resident(pids ...int) (kib float64) {
	for _, pid := range pids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if m := regexp.MustCompile(`VmRSS:\s+(\d+)`).FindSubmatch(text); m != nil {
			n, _ := strconv.ParseFloat(string(m[1]), 64)
			kib += n
		}
	}
	return kib
}

// tree is a process and its children.
func tree(pid int) []int {
	pids := []int{pid}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for f := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(f); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// requests compares the responder with net/http/fcgi.
func (b *bench) requests(ctx context.Context) error {
	fmt.Printf("\n### A small request: package fastcgi and net/http/fcgi, medians of %d\n\n```\n", b.rounds)
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", ".", "-benchmem", "-count", strconv.Itoa(b.rounds), "./fastcgi").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	byName := map[string][][]string{}
	var order []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		if byName[f[0]] == nil {
			order = append(order, f[0])
		}
		byName[f[0]] = append(byName[f[0]], f[2:])
	}
	for _, name := range order {
		fmt.Printf("%-44s", strings.TrimPrefix(name, "Benchmark"))
		for col := 0; col+1 < len(byName[name][0]); col += 2 {
			var values []float64
			for _, run := range byName[name] {
				v, _ := strconv.ParseFloat(run[col], 64)
				values = append(values, v)
			}
			fmt.Printf(" %12.0f %s", median(values), byName[name][0][col+1])
		}
		fmt.Println()
	}
	fmt.Println("```")
	return nil
}
