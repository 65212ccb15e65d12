package cluster

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// startWithin is how long all nodes together may take to answer: keys are
// made, servers start, and a machine may be busy.
const startWithin = 30 * time.Second

// Ready waits until every node, and the master, answers the operator's status
// call.
func (c *Cluster) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range c.nodes {
		group.Go(func() error { return c.ready(ctx, m.name) })
	}
	if c.master != nil {
		group.Go(func() error { return c.masterReady(ctx) })
	}
	return group.Wait()
}

func (c *Cluster) ready(ctx context.Context, node string) error {
	cl := c.Client(node)
	defer cl.Close()
	return c.answers(ctx, node, func() error {
		_, err := cl.Status(ctx)
		return err
	})
}

// answers waits until ask succeeds.
func (c *Cluster) answers(ctx context.Context, name string, ask func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w%s", name, err, c.troubles(name))
		}
	}
}

// masterReady waits until the master answers the operator's status call.
func (c *Cluster) masterReady(ctx context.Context) error {
	m := c.MasterClient()
	defer m.Close()
	return c.answers(ctx, c.master.name, func() error {
		_, err := m.Status(ctx)
		return err
	})
}

// troubles is what a node's servers last said, for the error of a start that
// failed.
func (c *Cluster) troubles(node string) string {
	var b strings.Builder
	var names []string
	for _, m := range c.members() {
		if m.name == node {
			names = append(names, m.responder.Name, m.frontend.Name)
		}
	}
	for _, name := range names {
		c.mu.Lock()
		e := c.state[name]
		c.mu.Unlock()
		if e.Error != "" || e.Ended != "" {
			fmt.Fprintf(&b, "\n%s was started %d times: %s%s", name, e.Starts, e.Error, e.Ended)
		}
		for _, line := range lastLines(c.Log(name), 5) {
			fmt.Fprintf(&b, "\n%s says: %s", name, line)
		}
	}
	return b.String()
}

// lastLines are the last n lines of a log; none when it cannot be read.
func lastLines(path string, n int) []string {
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		return nil
	}
	lines := slices.Collect(strings.Lines(string(text)))
	lines = lines[max(0, len(lines)-n):]
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], "\n")
	}
	return lines
}
