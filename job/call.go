package job

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/nodeset"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"
)

const (
	// callBudget bounds the answers of a call together, in bytes: they are in one
	// journal, beside the errors.
	callBudget = 10 << 20
	// maxCallText bounds the text of one node's error, in bytes.
	maxCallText = 1 << 10
	// maxCallSet bounds a node set in a call's result, in bytes.
	maxCallSet = 4 << 10
	// keptTogether is how many answers are on their way to the disk at a time: a
	// store commits them as one.
	keptTogether = 8
	// listed is how many entries of a folder a call shows.
	listed = 100
)

// call runs one operation on many nodes. Each node's outcome is a record in the
// feed as soon as it is known; nodes that have one from an earlier run are not
// called again.
func (r *run) call(ctx context.Context) (api.Raw, error) {
	spec := r.j.Spec.Call
	if err := CheckCall(spec); err != nil {
		return nil, err
	}
	if r.d.Lean == nil {
		return nil, errors.New("this driver cannot call many nodes")
	}
	began := time.Now()
	targets := callTargets(spec)
	tally := &tally{result: api.CallResult{Op: spec.Op, Nodes: len(targets), Counts: map[api.Outcome]int{}, Sample: spec.Sample}, sets: map[api.Outcome][]string{}}
	if spec.Sample > 0 {
		tally.result.Seed = spec.Seed
	}
	var left []string
	for _, node := range targets {
		if final, ok := r.finals[r.j.Tasks[node].Request.ID]; ok {
			tally.add(node, api.OutcomeOf(&final))
		} else {
			left = append(left, node)
		}
	}
	if err := r.callAll(ctx, targets, left, tally); err != nil {
		return nil, err
	}
	tally.result.Seconds = time.Since(began).Seconds()
	return tally.outcome(r.cancelled())
}

func (r *run) callAll(ctx context.Context, targets, left []string, tally *tally) error {
	spec := r.j.Spec.Call
	sizes, _ := waves(spec.Waves, len(targets)) // CheckCall has tried both
	stop, _ := stopAfter(spec.MaxFailed, len(targets))
	// Those that have ended already were in the first waves.
	sizes = after(sizes, len(targets)-len(left))
	if stop > 0 {
		stop = max(stop-(len(targets)-len(left)-tally.result.Counts[api.Done]), 1)
	}
	calling, end := context.WithCancel(ctx)
	defer end()
	watch := r.background(calling, func(ctx context.Context) {
		select {
		case <-r.d.Cancel:
			end()
		case <-ctx.Done():
		}
	})
	defer watch()
	item := r.j.feed.Item(spec.Op, "call", "nodes", int64(len(targets)))
	defer item.End()
	item.Carry(int64(len(targets) - len(left)))
	calls := client.Call(calling, client.Fan{
		Nodes: left, Client: r.d.Lean, Window: spec.Window, Timeout: callTimeout(spec), Waves: sizes, StopAfter: stop,
		Changes: api.CallOpOf(spec.Op).Changes,
	}, func(ctx context.Context, c *client.Client) (api.Raw, error) {
		return ask(ctx, c, r.j.Tasks[c.Node()], spec)
	})
	most := min(api.MaxCallAnswer, callBudget/len(targets))
	var group errgroup.Group
	group.SetLimit(keptTogether)
	for a := range calls.Each() {
		if ctx.Err() != nil && a.Err != nil {
			continue // whoever goes on with the job calls it again
		}
		if a.Err == nil && len(a.Value) > most {
			a.Err = api.TooLarge.Err(fmt.Sprintf("%s: the answer has %d bytes, more than the %d that one of %d nodes may have", a.Node, len(a.Value), most, len(targets)))
		}
		tally.add(a.Node, a.Outcome())
		group.Go(func() error {
			defer item.Add(1)
			return r.keepAnswer(a)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// after is what n nodes leave of waves.
func after(sizes []int, n int) []int {
	sizes = slices.Clone(sizes)
	for len(sizes) > 0 && n >= sizes[0] {
		n -= sizes[0]
		sizes = sizes[1:]
	}
	if len(sizes) > 0 {
		sizes[0] -= n
	}
	return sizes
}

// keepAnswer puts what became of a node into the feed, as its task's only
// record.
func (r *run) keepAnswer(a client.Answered[api.Raw]) error {
	kept := api.CallAnswer{Answer: a.Value, Seconds: a.Took.Seconds(), Pin: a.Peer.Pin, PinRole: a.Peer.Role, Expires: a.Peer.Expires.UTC()}
	rec := feedback.Record{Seq: 1, Time: time.Now().UTC().Truncate(time.Millisecond)}
	if a.Err == nil {
		rec.Kind, rec.Body = feedback.KindResult, &feedback.Result{Value: api.Encode(kept)}
	} else {
		kept.Answer = nil
		text := a.Err.Message
		if len(text) > maxCallText {
			text = strings.ToValidUTF8(text[:maxCallText], "") + "…"
		}
		rec.Kind, rec.Body = feedback.KindError, &feedback.Error{Code: a.Err.Code, Message: text, Retryable: a.Err.Retryable, Detail: api.Encode(kept)}
	}
	line, err := feedback.Encode(rec)
	if err != nil {
		return fmt.Errorf("keeping an answer: %w", err)
	}
	rec.Line = line
	if err := r.j.feed.Task(a.Node, r.j.Tasks[a.Node].Request.ID, line); err != nil {
		return fmt.Errorf("keeping an answer: %w", err)
	}
	if r.d.Heard != nil {
		r.d.Heard(a.Node, rec)
	}
	return nil
}

// tally counts outcomes.
type tally struct {
	result api.CallResult
	sets   map[api.Outcome][]string
}

func (t *tally) add(node string, o api.Outcome) {
	t.result.Counts[o]++
	if o != api.Done {
		t.sets[o] = append(t.sets[o], node)
	}
}

// outcome is the result of a call in which every node is done, else an error
// with it as its detail.
func (t *tally) outcome(cancelled bool) (api.Raw, error) {
	r := &t.result
	if r.Counts[api.Done] == r.Nodes {
		return inOrder(r)
	}
	r.NotDone = map[api.Outcome]string{}
	var parts []string
	for o, nodes := range t.sets {
		set := nodeset.Fold(nodes)
		if len(set) > maxCallSet {
			set = set[:maxCallSet] + "…"
		}
		r.NotDone[o] = set
		parts = append(parts, fmt.Sprintf("%s: %s", o, cmp.Or(set[:min(len(set), 200)], "none")))
	}
	slices.Sort(parts)
	text := fmt.Sprintf("%d of %d nodes are done; %s", r.Counts[api.Done], r.Nodes, strings.Join(parts, "; "))
	wire := api.NotAllDone.Err(text)
	if cancelled {
		wire = api.CancelledBy.Err("cancelled: " + text)
	}
	detail, err := inOrder(r)
	if err != nil {
		return nil, err
	}
	wire.Detail = detail
	return nil, wire
}

// inOrder encodes a result with the members of its maps in order, so that equal
// ones look the same.
func inOrder(r *api.CallResult) (api.Raw, error) { return json.Marshal(r, json.Deterministic(true)) }

// ask is the operation on one node.
func ask(ctx context.Context, c *client.Client, t *Task, spec *api.CallSpec) (api.Raw, error) {
	a := spec.Args
	switch spec.Op {
	case api.CallStatus:
		return encoded(c.Status(ctx))
	case api.CallResources:
		return encoded(c.Resources(ctx))
	case api.CallList:
		return encoded(c.FilesPage(ctx, a.Resource, a.Path, "", listed))
	case api.CallCheck:
		return encoded(c.Check(ctx, a.Resource, a.Path))
	case api.CallReach:
		return encoded(c.Reach(ctx, a.Node))
	case api.CallSelftest:
		return askSelftest(ctx, c)
	case api.CallCRL:
		return api.Raw(`{}`), c.PutCRL(ctx, a.CRL)
	case api.CallDigest:
		return askDigest(ctx, c, t)
	}
	return nil, api.BadSpec.Err("there is no operation " + spec.Op)
}

func encoded[T any](v *T, err error) (api.Raw, error) {
	if err != nil {
		return nil, err
	}
	return api.Encode(v), nil
}

func askSelftest(ctx context.Context, c *client.Client) (api.Raw, error) {
	resp, err := c.Selftest(ctx, "headers", nil, nil, api.TypeJSON)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, client.MaxLean))
	if err != nil {
		return nil, &client.Broken{Node: c.Node(), What: "reading the self-test", Sent: true, Err: err}
	}
	v := api.Raw(b)
	if err := v.Compact(); err != nil {
		return nil, api.TooLarge.Err("the answer of the self-test is no JSON, or too long")
	}
	return v, nil
}

// askDigest runs the task to its end. A task that nobody waits for any more is
// cancelled.
func askDigest(ctx context.Context, c *client.Client, t *Task) (api.Raw, error) {
	req := t.Request
	begun := false
	final, err := c.Follow(ctx, client.Run{Request: &req}, func(feedback.Record) error {
		begun = true
		return nil
	})
	if err != nil {
		if begun && ctx.Err() != nil {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
			defer cancel()
			_ = c.Cancel(end, req.ID)
		}
		return nil, err
	}
	_ = c.Ack(ctx, req.ID, final.Seq)
	return valueOf(t.Node, final)
}
