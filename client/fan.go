package client

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/feedback"
)

// Limits of a fan-out.
const (
	// DefaultWindow and MaxWindow are how many nodes are called at a time.
	DefaultWindow = 64
	MaxWindow     = 1024
	// DefaultTimeout is how long one node is waited for.
	DefaultTimeout = 30 * time.Second
	// Patience is how long a node may be silent before it gives up its place in
	// the window: it is waited for beside it, and holds nobody up.
	Patience = time.Second
	// maxFlight bounds the nodes in the window and beside it.
	maxFlight = 1024
)

// A Fan says how many nodes are called. The zero value of each field but Nodes
// and Client works.
type Fan struct {
	// Nodes are called in this order, each once.
	Nodes []string
	// Client returns a client of a node for this call alone, which is closed when
	// the node has ended: a lean one.
	Client func(node string) (*Client, error)
	// Window is how many nodes are called at a time, in a window that slides:
	// where one ends, the next begins. 0: DefaultWindow.
	Window int
	// Timeout bounds each node, from its own begin. 0: DefaultTimeout.
	Timeout time.Duration
	// Waves are numbers of nodes: a wave begins when every node of the one before
	// has ended. What they leave is a last wave.
	Waves []int
	// StopAfter is how many nodes may end otherwise than done before no further
	// one is begun; 0: any number.
	StopAfter int
	// Changes says that the call changes something at the nodes, so that one that
	// was sent and not answered is unknown.
	Changes bool
}

// An Answered is what became of one node.
type Answered[T any] struct {
	Node string
	// Err is nil when the node is done; else its code says the outcome.
	Err   *feedback.Error
	Value T    // of a node that is done
	Peer  Peer // the server that was met; its zero value where none was
	Took  time.Duration
}

// Outcome is that of the node.
func (a *Answered[T]) Outcome() api.Outcome {
	if a.Err == nil {
		return api.Done
	}
	return api.CodeOf(a.Err.Code).Outcome
}

// Calls are the futures of many nodes. One of its methods is called once, by one
// goroutine; when it returns nothing is under way any more.
type Calls[T any] struct {
	fan     Fan
	fn      func(context.Context, *Client) (T, error)
	cancel  context.CancelFunc
	results chan Answered[T] // has room for all: nobody waits for who reads
	work    sync.WaitGroup
	failed  atomic.Int64
}

// Call begins to call the nodes of fan with fn and returns at once. When ctx
// ends, those under way end as cancelled (or unknown) and the others as not
// tried.
func Call[T any](ctx context.Context, fan Fan, fn func(context.Context, *Client) (T, error)) *Calls[T] {
	if fan.Window <= 0 {
		fan.Window = DefaultWindow
	}
	fan.Window = min(fan.Window, MaxWindow)
	if fan.Timeout <= 0 {
		fan.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &Calls[T]{fan: fan, fn: fn, cancel: cancel, results: make(chan Answered[T], len(fan.Nodes))}
	c.work.Go(func() {
		defer close(c.results)
		c.dispatch(ctx)
	})
	return c
}

// Each hands out every node once, as it ends. A loop that breaks off ends the
// others.
func (c *Calls[T]) Each() iter.Seq[Answered[T]] {
	return func(yield func(Answered[T]) bool) {
		defer c.work.Wait()
		defer c.cancel()
		for a := range c.results {
			if !yield(a) {
				return
			}
		}
	}
}

// All waits for every node and returns them in the order of Fan.Nodes.
func (c *Calls[T]) All() []Answered[T] {
	at := make(map[string]int, len(c.fan.Nodes))
	for i, n := range c.fan.Nodes {
		at[n] = i
	}
	all := make([]Answered[T], len(c.fan.Nodes))
	for a := range c.Each() {
		all[at[a.Node]] = a
	}
	return all
}

// First waits for the node that ends first, however it ends, and ends the
// others. ok is false when there are no nodes.
func (c *Calls[T]) First() (a Answered[T], ok bool) {
	for a := range c.Each() {
		return a, true
	}
	return a, false
}

// Any waits until n nodes are done and ends the others, or until it is certain
// that fewer are. done are in the order in which they came; others are those
// that had ended otherwise by then.
func (c *Calls[T]) Any(n int) (done, others []Answered[T]) {
	if n <= 0 {
		c.cancel()
		c.work.Wait()
		return nil, nil
	}
	for a := range c.Each() {
		if a.Err != nil {
			others = append(others, a)
			continue
		}
		if done = append(done, a); len(done) == n {
			break
		}
	}
	return done, others
}

// dispatch begins the nodes, wave by wave, and returns when all have ended.
func (c *Calls[T]) dispatch(ctx context.Context) {
	window, flight := make(chan struct{}, c.fan.Window), make(chan struct{}, maxFlight)
	for wave := range c.fan.waves() {
		var group sync.WaitGroup
		for _, node := range wave {
			if why := c.wait(ctx, window, flight); why != "" {
				c.results <- Answered[T]{Node: node, Err: api.Untried.Err(node + ": not tried: " + why)}
				continue
			}
			group.Go(func() {
				defer func() { <-flight }()
				leave := sync.OnceFunc(func() { <-window })
				defer leave()
				a := c.one(ctx, node, leave)
				if a.Err != nil {
					c.failed.Add(1)
				}
				c.results <- a
			})
		}
		group.Wait()
	}
}

// wait waits for a place; why says why there will be none.
func (c *Calls[T]) wait(ctx context.Context, window, flight chan struct{}) (why string) {
	const left = "the call was ended before its turn"
	select {
	case window <- struct{}{}:
	case <-ctx.Done():
		return left
	}
	select {
	case flight <- struct{}{}:
	case <-ctx.Done():
		<-window
		return left
	}
	switch {
	case ctx.Err() != nil:
		why = left
	case c.fan.StopAfter > 0 && c.failed.Load() >= int64(c.fan.StopAfter):
		why = "too many others were not done before its turn"
	default:
		return ""
	}
	<-window
	<-flight
	return why
}

// waves cuts the nodes into waves.
func (f *Fan) waves() iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		rest := f.Nodes
		for _, n := range f.Waves {
			n = min(max(n, 0), len(rest))
			if n > 0 && !yield(rest[:n]) {
				return
			}
			rest = rest[n:]
		}
		if len(rest) > 0 {
			yield(rest)
		}
	}
}

// one calls one node. leave is called when it has been silent for too long to
// hold its place.
func (c *Calls[T]) one(ctx context.Context, node string, leave func()) (a Answered[T]) {
	began := time.Now()
	a.Node = node
	defer func() { a.Took = time.Since(began) }()
	client, err := c.fan.Client(node)
	if err != nil {
		a.Err = api.Untried.Err(node + ": not tried: " + err.Error())
		return a
	}
	defer client.Close()
	late := &lateError{c.fan.Timeout}
	ctx, cancel := context.WithTimeoutCause(ctx, c.fan.Timeout, late)
	defer cancel()
	w := &witness{}
	silent := time.AfterFunc(Patience, func() {
		if !w.heard.Load() {
			leave()
		}
	})
	defer silent.Stop()
	value, err := c.fn(w.watch(ctx), client)
	a.Peer = w.peer(err)
	a.Peer.Role = client.config.Node.PinRole(a.Peer.Pin)
	if err != nil {
		a.Err = judge(ctx, node, err, w.sent.Load(), c.fan.Changes)
		return a
	}
	a.Value = value
	return a
}
