package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/internal/cluster"
	"gantry/internal/history"

	"github.com/stretchr/testify/require"
	"lukechampine.com/blake3"
)

// A masterLoad is what clients do with a master while it is killed. Everything
// that they ask and are shown goes into a history, raw.
type masterLoad struct {
	c      *cluster.Cluster
	rec    *history.Recorder
	prefix string // of the names of targets
	quit   chan struct{}

	disk sync.Mutex // held while a target is looked at, or taken away

	mu      sync.Mutex
	readers int               // guarded by mu
	states  map[string]string // guarded by mu; newest state of each job that has not ended
	jobs    []string          // guarded by mu
	targets map[string]bool   // guarded by mu; places that nobody looked at for the last time
	counts  map[string]int    // guarded by mu
}

func newMasterLoad(c *cluster.Cluster, prefix string) *masterLoad {
	return &masterLoad{
		c: c, rec: history.NewRecorder(nil), prefix: prefix, quit: make(chan struct{}),
		states: map[string]string{}, targets: map[string]bool{}, counts: map[string]int{},
	}
}

func (l *masterLoad) count(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

// inStates counts the unfinished jobs by their state as it was shown last.
func (l *masterLoad) inStates() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for _, s := range l.states {
		out[s]++
	}
	return out
}

// A masterClient is one client, with connections of its own.
type masterClient struct {
	*masterLoad
	http *http.Client
	url  string
	rng  *rand.Rand // used by one goroutine only
	name string

	followed int // jobs; every fifth is cancelled
}

func (l *masterLoad) client(name string, seed uint64) *masterClient {
	h, url := l.c.MasterHTTP()
	return &masterClient{l, h, url, rand.New(rand.NewPCG(seed, 7)), name, 0}
}

// work submits one job after the other until quit, and sees each to its end.
func (c *masterClient) work(ctx context.Context, t *testing.T) {
	defer c.http.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-c.quit:
			return
		default:
		}
		c.job(ctx, t, n, c.rng.IntN(12) == 0)
	}
}

// job submits a copy and does with it what users do. A twin is a second copy to
// the same target: one of both finds it busy and has to wait for an attempt of
// its own.
func (c *masterClient) job(ctx context.Context, t *testing.T, n int, twin bool) {
	name := fmt.Sprintf("%s-%s-%d.img", c.prefix, c.name, n)
	place := "beta:disks/" + name
	spec := map[string]any{
		"kind": "copy", "cluster": cluster.Name, "mode": "create", "bwlimit": (4 + c.rng.IntN(8)) << 20,
		"from": map[string]string{"node": "alpha", "resource": "disks", "path": fmt.Sprintf("src%d.img", c.rng.IntN(masterSources))},
		"to":   map[string]string{"node": "beta", "resource": "disks", "path": name},
	}
	if c.rng.IntN(3) == 0 {
		spec["mode"] = "replace"
		if err := c.c.CreateFile("beta", name, func(f *os.File) error {
			return cluster.Fill(ctx, f, cluster.Random(c.rng.Uint64(), 100_000))
		}); err != nil {
			t.Error(err)
			return
		}
		c.look(t, place)
	}
	body, err := json.Marshal(map[string]any{"spec": spec, "priority": c.rng.IntN(3)})
	if err != nil {
		t.Error(err)
		return
	}
	c.mu.Lock()
	c.targets[place] = true
	c.mu.Unlock()
	id := c.acked(ctx, t, history.Call{Op: history.Submit, Key: "k-" + name, Body: body}, "/jobs")
	var other sync.WaitGroup
	if twin && id != "" {
		spec["mode"], spec["bwlimit"] = "replace", 0
		second := &masterClient{c.masterLoad, c.http, c.url, rand.New(rand.NewPCG(c.rng.Uint64(), 11)), c.name + "t", 1}
		other.Go(func() { second.twin(ctx, t, id, name, spec) })
	}
	done := id != "" && c.follow(ctx, t, id)
	other.Wait()
	if id != "" && !done && ctx.Err() == nil && c.rng.IntN(3) > 0 {
		c.count("retries")
		again := c.acked(ctx, t, history.Call{Op: history.Retry, Job: id, Key: "r-" + name, Body: []byte(`{}`)}, "/jobs/"+id+"/retry")
		done = again != "" && c.follow(ctx, t, again)
	}
	if ctx.Err() != nil {
		return
	}
	if c.look(t, place); n%8 != 0 { // the disk is not endless
		c.disk.Lock()
		defer c.disk.Unlock()
		c.mu.Lock()
		delete(c.targets, place)
		c.mu.Unlock()
		if err := os.Remove(c.c.Path("beta", name)); err != nil && (done && !twin || !os.IsNotExist(err)) {
			t.Errorf("%s, done %v: %v", name, done, err)
		}
	}
}

// twin submits the second copy to a target once the first one is at work there.
func (c *masterClient) twin(ctx context.Context, t *testing.T, first, name string, spec map[string]any) {
	working := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		state, open := c.states[first]
		return !open || strings.HasPrefix(state, "beta")
	}
	for ctx.Err() == nil && !working() {
		pause(ctx, 5*time.Millisecond)
	}
	body, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		t.Error(err)
		return
	}
	c.count("twins")
	if id := c.acked(ctx, t, history.Call{Op: history.Submit, Key: "t-" + name, Body: body}, "/jobs"); id != "" {
		c.follow(ctx, t, id)
	}
}

// acked sends one request until it is acknowledged, as a client does that lost
// the reply, now and then leaves before it comes, and sometimes asks again.
func (c *masterClient) acked(ctx context.Context, t *testing.T, call history.Call, path string) string {
	for ctx.Err() == nil {
		patience := 10 * time.Second
		if c.rng.IntN(4) == 0 {
			patience = time.Duration(c.rng.IntN(8_000)) * time.Microsecond
		}
		got := c.call(ctx, call, http.MethodPost, path, patience)
		switch {
		case got.Status/100 == 2:
			var job struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal(got.Reply, &job); err != nil || job.ID == "" {
				t.Errorf("%s was acknowledged without an id: %s", call.Op, got.Reply)
				return ""
			}
			c.mu.Lock()
			c.jobs = append(c.jobs, job.ID)
			c.states[job.ID] = "queued"
			c.mu.Unlock()
			c.count("jobs")
			if c.rng.IntN(6) == 0 {
				c.call(ctx, call, http.MethodPost, path, 10*time.Second)
			}
			return job.ID
		case got.Status == 0 || got.Status >= 500:
			c.count("lost replies")
		default:
			t.Errorf("%s was refused: %d %s", call.Op, got.Status, got.Reply)
			return ""
		}
		pause(ctx, 20*time.Millisecond)
	}
	return ""
}

// call makes one request and records it.
func (c *masterClient) call(ctx context.Context, call history.Call, method, path string, patience time.Duration) history.Call {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	call.Caller, call.Began = "operator", time.Now()
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(call.Body))
	if err != nil {
		panic(err)
	}
	if len(call.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if call.Key != "" {
		req.Header.Set("Idempotency-Key", call.Key)
	}
	if resp, err := c.http.Do(req); err == nil {
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			call.Status = resp.StatusCode
			if json.Valid(text) {
				call.Reply = text
			}
		}
	}
	if len(call.Reply) == 0 && call.Status/100 == 2 && method != http.MethodDelete {
		call.Status = 0 // a reply that ends early is none
	}
	c.rec.Add(history.Event{Call: &call})
	return call
}

// follow watches a job to its end, by one reader or several, and perhaps
// cancels it; it reports whether the job is done.
func (c *masterClient) follow(ctx context.Context, t *testing.T, id string) bool {
	var others sync.WaitGroup
	defer others.Wait()
	for range c.rng.IntN(3) {
		seed := c.rng.Uint64()
		others.Go(func() { c.watch(ctx, t, id, rand.New(rand.NewPCG(seed, 3))) })
	}
	if c.followed++; c.followed%5 == 1 {
		after := time.Duration(c.rng.IntN(1500)) * time.Millisecond
		others.Go(func() { c.cancel(ctx, t, id, after) })
	}
	asks := c.rng.IntN(3)
	others.Go(func() {
		for range asks {
			pause(ctx, 300*time.Millisecond)
			c.call(ctx, history.Call{Op: history.Get, Job: id}, http.MethodGet, "/jobs/"+id, 10*time.Second)
		}
	})
	return c.watch(ctx, t, id, nil)
}

// cancel asks for a job's end until that is acknowledged or comes too late.
func (c *masterClient) cancel(ctx context.Context, t *testing.T, id string, after time.Duration) {
	for pause(ctx, after); ctx.Err() == nil; pause(ctx, 20*time.Millisecond) {
		got := c.call(ctx, history.Call{Op: history.Cancel, Job: id}, http.MethodDelete, "/jobs/"+id, 10*time.Second)
		if got.Status/100 == 2 || got.Status == http.StatusConflict {
			c.count("cancels")
			return
		}
		if got.Status > 0 && got.Status < 500 {
			t.Errorf("cancel was refused: %d %s", got.Status, got.Reply)
			return
		}
	}
}

// watch reads a job's feed to its final record, again and again from where it
// was; with rng it leaves now and then, and begins anew. It reports whether the
// job is done.
func (c *masterClient) watch(ctx context.Context, t *testing.T, id string, rng *rand.Rand) bool {
	after := int64(0)
	for ctx.Err() == nil {
		if rng != nil && rng.IntN(3) == 0 {
			after = 0
		}
		last, final := c.read(ctx, t, id, after, rng)
		if after = last; final != "" {
			return final == "result"
		}
		pause(ctx, 20*time.Millisecond)
	}
	return false
}

// read is one stream.
func (c *masterClient) read(ctx context.Context, t *testing.T, id string, after int64, rng *rand.Rand) (last int64, final string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/jobs/%s/feed?after=%d", c.url, id, after), nil)
	if err != nil {
		panic(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return after, ""
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode < 500 {
			c.rec.Add(history.Event{Call: &history.Call{Op: history.Watch, Caller: "operator", Job: id, Began: began, Status: resp.StatusCode}})
			text, _ := io.ReadAll(resp.Body)
			t.Errorf("a watch of job %s after %d was refused: %d %s", id, after, resp.StatusCode, text)
		}
		return after, ""
	}
	c.mu.Lock()
	c.readers++
	reader := c.readers
	c.mu.Unlock()
	c.rec.Add(history.Event{Attach: &history.Attach{Reader: reader, Job: id, After: after, Began: began}})
	defer func() { c.rec.Add(history.Event{Detach: &history.Detach{Reader: reader}}) }()
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return after, "" // a part of a line is none
		}
		line = strings.TrimRight(line, " \n")
		c.rec.Add(history.Event{Line: &history.Line{Reader: reader, Raw: line}})
		seq, kind := c.note(id, line)
		if after = max(after, seq); kind != "" {
			return after, kind
		}
		if rng != nil && rng.IntN(40) == 0 {
			return after, ""
		}
	}
}

// note keeps a job's state, for the histogram; it returns the kind of a final.
func (l *masterLoad) note(id, line string) (seq int64, final string) {
	var r struct {
		Seq    int64  `json:"seq"`
		To     int64  `json:"to"`
		Kind   string `json:"kind"`
		State  string `json:"state"`
		Node   string `json:"node"`
		Record struct {
			State string `json:"state"`
		} `json:"record"`
	}
	if json.Unmarshal([]byte(line), &r) != nil {
		return 0, "" // the checker sees it too
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	state, open := l.states[id]
	switch r.Kind {
	case "result", "error":
		if delete(l.states, id); open {
			l.counts[r.Kind]++
		}
		return r.Seq, r.Kind
	case "gap":
		return r.To, ""
	case "state":
		state = r.State
	case "task":
		if state = r.Node + " " + r.Record.State; r.Record.State == "" {
			state = r.Node + " running"
		}
	}
	if open && r.Seq > 0 {
		l.states[id] = state
	}
	return r.Seq, ""
}

// look reads a file as anybody could, and records what it is.
func (l *masterLoad) look(t *testing.T, place string) {
	began := time.Now()
	node, path, _ := strings.Cut(place, ":disks/")
	digest, err := digestOf(l.c.Path(node, path))
	if err != nil {
		t.Error(err)
		return
	}
	l.rec.Add(history.Event{Look: &history.Look{Place: place, Began: began, Digest: digest}})
}

// glance looks at one of the targets that are still to be judged.
func (l *masterLoad) glance(t *testing.T, rng *rand.Rand) {
	l.disk.Lock()
	defer l.disk.Unlock()
	l.mu.Lock()
	places := slices.Sorted(maps.Keys(l.targets))
	l.mu.Unlock()
	if len(places) > 0 {
		l.look(t, places[rng.IntN(len(places))])
	}
}

// digestOf is a file's digest by the library alone; "" when there is none.
func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := blake3.New(32, nil)
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("b3:%x", h.Sum(nil)), nil
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// complete asks for everything at the end, when no client is left.
func (c *masterClient) complete(ctx context.Context, t *testing.T) {
	c.mu.Lock()
	jobs, targets := c.jobs, c.targets
	c.mu.Unlock()
	for _, id := range jobs {
		replay, cancel := context.WithTimeout(ctx, 5*time.Second) // of one that has ended there is nothing to wait for
		c.read(replay, t, id, 0, nil)
		cancel()
		c.call(ctx, history.Call{Op: history.Get, Job: id}, http.MethodGet, "/jobs/"+id, 10*time.Second)
	}
	c.list(ctx, t)
	for place := range targets {
		c.look(t, place)
	}
}

// list asks for all pages of the list and records them as one.
func (c *masterClient) list(ctx context.Context, t *testing.T) {
	began, cursor := time.Now(), ""
	var all []json.RawMessage
	for {
		got := c.call(ctx, history.Call{Op: "page"}, http.MethodGet, "/jobs?limit=50&cursor="+cursor, 10*time.Second)
		var page struct {
			Jobs []json.RawMessage `json:"jobs"`
			Next string            `json:"next"`
		}
		if err := json.Unmarshal(got.Reply, &page); got.Status != http.StatusOK || err != nil {
			t.Errorf("the list is refused: %d %s", got.Status, got.Reply)
			return
		}
		all = append(all, page.Jobs...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	reply, err := json.Marshal(map[string]any{"jobs": all})
	require.NoError(t, err)
	c.rec.Add(history.Event{Call: &history.Call{Op: history.List, Caller: "operator", Began: began, Status: http.StatusOK, Reply: reply}})
}
