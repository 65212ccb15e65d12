package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"gantry/front"
	"gantry/internal/cluster"
)

// lineDelay is added to every byte in each direction: 50 ms there and back.
const lineDelay = 25 * time.Millisecond

// lines measures a copy over a line with delay, and what moves over it: pulled
// and pushed, new and over an old copy.
func (b *bench) lines(ctx context.Context) error {
	size := b.size / 4
	source := filepath.Join(b.dir, "line")
	if err := shell(ctx, "mkdir -p "+source); err != nil {
		return err
	}
	if err := fill(filepath.Join(source, oldFile), size<<20); err != nil {
		return err
	}
	r, err := newRivals(ctx, b.dir, filepath.Join(source, oldFile))
	if err != nil {
		return err
	}
	defer r.close()
	s, err := newRsyncs(ctx, r, source)
	if err != nil {
		return err
	}
	moved := map[string]func() int64{}
	var all []*contender
	for _, kind := range []front.Kind{front.Lighttpd, front.Nginx} {
		if !installed(string(kind)) {
			continue
		}
		c, err := b.cluster(ctx, cluster.Options{Front: kind, Proxied: true})
		if err != nil {
			return err
		}
		defer c.Close()
		if err := shell(ctx, fmt.Sprintf("ln %s %s; chmod 644 %[1]s", filepath.Join(source, oldFile), c.Path("alpha", oldFile))); err != nil {
			return err
		}
		for _, how := range []string{"pull", "push"} {
			from := "alpha" // whose bulk port carries the bytes
			if how == "push" {
				from = "beta"
			}
			c.Proxy(from).Delay(lineDelay)
			name := fmt.Sprintf("gantry copy, %s, %s", kind, how)
			moved[name] = c.Proxy(from).Moved
			all = append(all, &contender{name: name, target: c.Path("beta", "copy.img"), run: func(ctx context.Context) error {
				return operator(ctx, c, "copy", "--new", "--quiet", "--"+how, "alpha:disks/"+oldFile, "beta:disks/copy.img")
			}})
		}
	}
	if err := b.delayedRivals(&all, moved, r, s); err != nil {
		return err
	}
	before := map[string]int64{}
	for name, bytes := range moved {
		before[name] = bytes()
	}
	rounds := min(b.rounds, 3)
	all, err = b.race(ctx, all, rounds)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("Copy of %d MiB over a line with %v of delay each way", size, lineDelay), all, size)
	fmt.Printf("\n| what | bytes on the line, both ways, per copy, ÷ size |\n| --- | --- |\n")
	for _, c := range all {
		if bytes, ok := moved[c.name]; ok {
			fmt.Printf("| %s | %.4f |\n", c.name, float64(bytes()-before[c.name])/float64(rounds)/float64(size<<20))
		}
	}
	return nil
}

// delayedRivals adds curl and rsync's daemon behind proxies of their own.
func (b *bench) delayedRivals(all *[]*contender, moved map[string]func() int64, r *rivals, s *rsyncs) error {
	delayed := func(port int) (*cluster.Proxy, error) {
		p, err := cluster.NewProxy(fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			p.Delay(lineDelay)
			r.proxies = append(r.proxies, p)
		}
		return p, err
	}
	target := filepath.Join(r.dir, "line.img")
	if r.nginx > 0 {
		p, err := delayed(r.nginx)
		if err != nil {
			return err
		}
		c := s.contender("curl + sync + b3sum, nginx", target, "curl -sSf --http1.1 --cacert %s --cert %s --key %s -o %s https://%s/%s && sync %[4]s && b3sum %[4]s", r.ca, r.cert, r.key, target, p.Addr(), oldFile)
		moved[c.name] = p.Moved
		*all = append(*all, c)
	}
	if s.daemon > 0 {
		p, err := delayed(s.daemon)
		if err != nil {
			return err
		}
		c := s.contender("rsync daemon without TLS, --fsync, + b3sum", target, "rsync -tW --fsync rsync://%s/src/%s %s && b3sum %[3]s", p.Addr(), oldFile, target)
		moved[c.name] = p.Moved
		*all = append(*all, c)
	}
	return nil
}
