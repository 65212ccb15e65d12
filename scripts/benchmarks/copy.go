package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gantry/front"
	"gantry/internal/cluster"
)

// A contender is one way to get the file from here to there.
type contender struct {
	name   string
	run    func(ctx context.Context) error
	target string // removed before each run
	// prepare, if set, makes the state that each run begins with, instead.
	prepare func(ctx context.Context) error

	wall, cpu []float64 // seconds, one per round
}

const benchFile = "bench.img"

// copies measures the copy of one large random file, page cache warm.
func (b *bench) copies(ctx context.Context) error {
	source := filepath.Join(b.dir, benchFile)
	if err := fill(source, b.size<<20); err != nil {
		return err
	}
	var all []*contender
	for _, kind := range []front.Kind{front.Lighttpd, front.Nginx} {
		if !installed(string(kind)) {
			continue
		}
		for _, how := range [][2]string{{"front", "auto"}, {"front", "off"}, {"stream", "auto"}} {
			send, direct := how[0], how[1]
			c, err := b.cluster(ctx, cluster.Options{Front: kind, Send: send, Direct: direct})
			if err != nil {
				return err
			}
			defer c.Close()
			if err := os.Link(source, c.Path("alpha", benchFile)); err != nil {
				return err
			}
			target := c.Path("beta", "copy.img")
			name := fmt.Sprintf("gantry copy, %s, send = %s", kind, send)
			if direct == "off" {
				name += ", no O_DIRECT"
			}
			all = append(all, &contender{name: name, target: target, run: func(ctx context.Context) error {
				return operator(ctx, c, "copy", "--new", "--quiet", "alpha:disks/"+benchFile, "beta:disks/copy.img")
			}})
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("neither lighttpd nor nginx is installed")
	}
	// Readable by the responders through their links, and by the rivals' servers.
	if err := os.Chmod(source, 0o644); err != nil {
		return err
	}
	r, err := newRivals(ctx, b.dir, source)
	if err != nil {
		return err
	}
	defer r.close()
	all = append(all, r.contenders()...)
	s, err := newRsyncs(ctx, r, b.dir)
	if err != nil {
		return err
	}
	all = append(all, s.copies(benchFile)...)
	floor := filepath.Join(b.dir, "floor.img")
	all = append(all, &contender{name: "floor: dd through the page cache, conv=fsync", target: floor, run: func(ctx context.Context) error {
		return shell(ctx, fmt.Sprintf("dd if=%s of=%s bs=4M conv=fsync status=none", source, floor))
	}})
	all, err = b.race(ctx, all, b.rounds)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("Copy of %d MiB of random bytes, page cache warm", b.size), all, b.size)
	return nil
}

// race runs every contender once per round, in turn. Each round begins with
// another one, because what a run leaves in memory touches the next. Left out are
// those that -only does not name.
func (b *bench) race(ctx context.Context, all []*contender, rounds int) ([]*contender, error) {
	all = slices.DeleteFunc(all, func(c *contender) bool { return !strings.Contains(c.name, b.only) })
	for round := range rounds {
		for i := range all {
			c := all[(round*3+i)%len(all)]
			if err := c.fresh(ctx); err != nil {
				return nil, fmt.Errorf("%s: preparing: %w", c.name, err)
			}
			settle()
			profiled := b.profile(ctx, c.name)
			before, start := busy(), time.Now()
			if err := c.run(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			c.wall = append(c.wall, time.Since(start).Seconds())
			c.cpu = append(c.cpu, busy()-before)
			if err := profiled(); err != nil {
				return nil, fmt.Errorf("perf: %w", err)
			}
			fmt.Fprintf(os.Stderr, "round %d: %-60s %6.2f s wall %6.2f s CPU\n", round+1, c.name, c.wall[round], c.cpu[round])
			if c.prepare == nil {
				os.Remove(c.target)
			}
		}
	}
	return all, nil
}

// profile samples the whole machine from now until what it returns is called, when
// -perf says where to.
func (b *bench) profile(ctx context.Context, name string) (stop func() error) {
	if b.perf == "" {
		return func() error { return nil }
	}
	b.perfs++
	slug := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	cmd := exec.CommandContext(ctx, "perf", "record", "-q", "-a", "-g", "-F", "997", "-o", filepath.Join(b.perf, fmt.Sprintf("%02d-%s.data", b.perfs, slug)))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return func() error { return err }
	}
	time.Sleep(time.Second) // until it samples
	return func() error {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		_ = cmd.Wait() // interrupted is how it ends
		return nil
	}
}

// fresh makes the state in which a run begins.
func (c *contender) fresh(ctx context.Context) error {
	if c.prepare != nil {
		return c.prepare(ctx)
	}
	os.Remove(c.target)
	return nil
}

// report prints one table of times, and one of ratios: the rival's wall time
// divided by ours in the same round, median (least–most).
func report(title string, all []*contender, mib int64) {
	if len(all) == 0 {
		return
	}
	fmt.Printf("\n### %s, medians of %d rounds\n\n| what | wall s | CPU s | GB/s |\n| --- | --- | --- | --- |\n", title, len(all[0].wall))
	for _, c := range all {
		w := median(c.wall)
		fmt.Printf("| %s | %.2f | %.1f | %.2f |\n", c.name, w, median(c.cpu), float64(mib<<20)/1e9/w)
	}
	ratios(all)
}

// ratios prints how many times as long each rival took as each of ours.
func ratios(all []*contender) {
	fmt.Printf("\n| rival's wall time ÷ ours, by round: median (least–most) |")
	var ours, rivals []*contender
	for _, c := range all {
		if name, ok := strings.CutPrefix(c.name, "gantry "); ok {
			ours = append(ours, c)
			fmt.Printf(" %s |", strings.TrimPrefix(name, "copy, "))
		} else {
			rivals = append(rivals, c)
		}
	}
	fmt.Printf("\n| --- |")
	for range ours {
		fmt.Print(" --- |")
	}
	fmt.Println()
	for _, r := range rivals {
		fmt.Printf("| %s |", r.name)
		for _, o := range ours {
			var ratios []float64
			for i := range o.wall {
				ratios = append(ratios, r.wall[i]/o.wall[i])
			}
			fmt.Printf(" %.2f (%.2f–%.2f) |", median(ratios), percentile(ratios, 0), percentile(ratios, 1))
		}
		fmt.Println()
	}
}

// cluster starts a cluster of two nodes; the caller closes it.
func (b *bench) cluster(ctx context.Context, o cluster.Options) (*cluster.Cluster, error) {
	b.clusters++
	o.Program, o.Env = b.program, os.Environ()
	o.Dir = filepath.Join(b.dir, fmt.Sprintf("c%d", b.clusters))
	c, err := cluster.New(o)
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// operator runs gantry as the operator of c.
func operator(ctx context.Context, c *cluster.Cluster, args ...string) error {
	if out, err := operatorCommand(ctx, c, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// fill writes size random bytes, the same in every run.
func fill(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	random := rand.NewChaCha8([32]byte{'g', 'a', 'n', 't', 'r', 'y'})
	buf := make([]byte, 4<<20)
	for left := size; left > 0; left -= int64(len(buf)) {
		buf = buf[:min(left, int64(len(buf)))]
		random.Read(buf)
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Sync()
}
