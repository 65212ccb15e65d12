package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/job"

	"github.com/spf13/cobra"
)

const (
	noMaster   = "none"  // --master: this command drives the nodes itself
	unixPrefix = "unix:" // --master: the local socket of a master
)

// A hub is the master that keeps and runs jobs for this command.
type hub struct {
	name string
	*client.Master
}

// hub opens the master that --master names, or the one that cluster.toml lists;
// nil: there is none. It must be closed.
func (e *env) hub(cmd *cobra.Command, o *operator) (*hub, error) {
	if path, ok := strings.CutPrefix(e.master, unixPrefix); ok {
		if path == "" {
			return nil, misused(cmd, "--master %s names no socket; write unix:/run/gantry-master-local/local.sock", e.master)
		}
		return &hub{e.master, client.NewLocalMaster(path, nil)}, nil
	}
	var names []string
	for _, m := range o.cluster.Masters {
		names = append(names, m.Name)
		if e.master == m.Name || e.master == "" && len(o.cluster.Masters) == 1 {
			return &hub{m.Name, o.master(m)}, nil
		}
	}
	switch {
	case e.master == noMaster || e.master == "" && len(names) == 0:
		return nil, nil
	case e.master == "":
		return nil, misused(cmd, "cluster.toml lists several masters; choose one with --master: %s, or none", strings.Join(names, ", "))
	}
	return nil, notFound("there is no master %q in %s%s", e.master, filepath.Join(o.home, "cluster.toml"), near(e.master, append(names, noMaster)))
}

// master returns a client of a master of cluster.toml; close it.
func (o *operator) master(m config.ClusterNode) *client.Master {
	return client.NewMaster(client.Config{Node: m, TLS: client.TLS(o.identity, m)})
}

// hubAlone is hub for what names no node. Where no master is asked for and none
// is listed, the caller's identity is not needed.
func (e *env) hubAlone(cmd *cobra.Command) (*hub, error) {
	if e.master == noMaster || strings.HasPrefix(e.master, unixPrefix) {
		return e.hub(cmd, &operator{cluster: &config.Cluster{}})
	}
	if e.master == "" {
		home, err := e.folder()
		if err != nil { // without a folder there is no cluster.toml
			return nil, nil
		}
		path := filepath.Join(home, "cluster.toml")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if cluster, err := config.LoadCluster(path); err != nil || len(cluster.Masters) == 0 {
			return nil, err
		}
	}
	o, err := e.operator()
	if err != nil {
		return nil, err
	}
	return e.hub(cmd, o)
}

// queued is the flags of what a master can keep and run.
type queued struct {
	detach    bool
	priority  int
	notBefore moment
	attempts  int
	limits    []string
}

func (q *queued) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&q.detach, "detach", "d", false, "print the job's id and leave it to the master")
	f.IntVar(&q.priority, "priority", 0, fmt.Sprintf("at the master: `N`, %d to %d; greater ones go first", -api.MaxPriority, api.MaxPriority))
	f.Var(&q.notBefore, "not-before", "at the master: begin at `TIME`, such as 2027-01-31T22:00:00Z, or after so long, such as 8h")
	f.IntVar(&q.attempts, "attempts", 0, fmt.Sprintf("at the master: `N` attempts, 1 to %d (default %d)", api.MaxAttemptsCap, api.DefaultTries))
	f.StringSliceVar(&q.limits, "limit", nil, "at the master: the `NAMES` of limits that the job counts against")
}

// check refuses what cannot be meant; with says that a master runs the job.
func (q *queued) check(cmd *cobra.Command, with bool) error {
	changed := cmd.Flags().Changed
	for _, name := range []string{"detach", "priority", "not-before", "attempts", "limit"} {
		if !with && changed(name) {
			return misused(cmd, "--%s is for jobs that a master runs, and this command drives this one; add [[master]] to cluster.toml, or name one with --master", name)
		}
	}
	switch {
	case q.priority < -api.MaxPriority || q.priority > api.MaxPriority:
		return misused(cmd, "--priority wants %d to %d", -api.MaxPriority, api.MaxPriority)
	case changed("attempts") && (q.attempts < 1 || q.attempts > api.MaxAttemptsCap):
		return misused(cmd, "--attempts wants 1 to %d", api.MaxAttemptsCap)
	case len(q.limits) > api.MaxLimitNames:
		return misused(cmd, "%d names of --limit are the most", api.MaxLimitNames)
	}
	return nil
}

// moment is a time, or how long from now it is.
type moment struct {
	at    time.Time
	after time.Duration
}

func (m *moment) String() string { return "" }
func (m *moment) Type() string   { return "TIME" }

// Set reads RFC 3339, or a duration.
func (m *moment) Set(s string) error {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		*m = moment{after: d}
		return nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return errors.New("write a time such as 2027-01-31T22:00:00Z, or how long from now, such as 8h or 30m")
	}
	*m = moment{at: at}
	return nil
}

func (m *moment) time(now time.Time) time.Time {
	if m.after > 0 {
		return now.Add(m.after)
	}
	return m.at
}

// byMaster has a master do what spec asks for and shows it. done is false where
// there is no master, and for a local file: then this command drives the nodes.
func (e *env) byMaster(cmd *cobra.Command, o *operator, spec job.Spec, q *queued, diff bool) (done bool, err error) {
	h, err := e.hub(cmd, o)
	if err != nil {
		return true, err
	}
	if h == nil || spec.Local != "" {
		return false, q.check(cmd, false)
	}
	defer h.Close()
	if err := q.check(cmd, true); err != nil {
		return true, err
	}
	return true, e.queue(cmd.Context(), h, spec, q, diff)
}

func (e *env) queue(ctx context.Context, h *hub, spec job.Spec, q *queued, diff bool) error {
	req := &api.JobRequest{
		Spec: api.Encode(spec), Priority: q.priority, NotBefore: q.notBefore.time(e.Now()), MaxAttempts: q.attempts, Limits: q.limits,
	}
	j, err := e.insist(ctx, h, func(ctx context.Context, key string) (*api.Job, error) { return h.Submit(ctx, req, key) })
	if err != nil {
		return err
	}
	return e.follow(ctx, h, j, 0, q.detach, diff)
}

// Asking a master for a job goes on for insistFor, with pauses that grow.
const (
	insistFor   = time.Minute
	insistFirst = 250 * time.Millisecond
	insistMost  = 5 * time.Second
)

// insist asks a master for a job and repeats the request, always with the same
// key, when an answer was lost: so there is one job, however often it is sent.
func (e *env) insist(ctx context.Context, h *hub, ask func(ctx context.Context, key string) (*api.Job, error)) (*api.Job, error) {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	defer e.leaving(leave)()
	key, end := api.NewID(), e.Now().Add(insistFor)
	for pause, sent := insistFirst, false; ; pause = min(2*pause, insistMost) {
		j, err := ask(ctx, key)
		if err == nil {
			return j, nil
		}
		again, maybe := lostAnswer(err)
		sent = sent || maybe || ctx.Err() != nil
		if ctx.Err() == nil && again && e.Now().Before(end) {
			if err := e.say("%v; asking again", err); err != nil {
				return nil, err
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
			}
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if sent {
			return nil, &coded{api.ExitUnknown, fmt.Errorf("%w; whether master %s has the job is unknown: gantry jobs shows it", err, h.name)}
		}
		return nil, err
	}
}

// lostAnswer says whether to send a request again, and whether the one that was
// sent may have been obeyed.
func lostAnswer(err error) (again, maybe bool) {
	if wire, ok := errors.AsType[*feedback.Error](err); ok {
		return wire.Retryable, false
	}
	again = client.AnswerTo(err).Retry
	if broken, ok := errors.AsType[*client.Broken](err); ok {
		return again, broken.Sent
	}
	return again, again // a front that reached the master too late
}

// leaving ends a wait at the first signal.
func (e *env) leaving(leave context.CancelCauseFunc) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-done:
		case <-e.Interrupts:
			leave(job.ErrLeft)
		}
	})
	return func() { close(done); wg.Wait() }
}

// follow shows a master's job to its end, or prints its id and leaves it.
func (e *env) follow(ctx context.Context, h *hub, j *api.Job, after int64, detach, diff bool) error {
	if detach {
		if e.json {
			return e.printJSON(j)
		}
		_, err := fmt.Fprintln(e.Stdout, feedback.Printable(j.ID))
		return err
	}
	var spec job.Spec
	if err := api.DecodeBytes(j.Spec, &spec); err != nil {
		return fmt.Errorf("reading job %s: %w", j.ID, err)
	}
	if !j.State.Final() {
		if err := e.say("job %s is at master %s", shortID(j.ID), h.name); err != nil {
			return err
		}
	}
	var answers []job.NodeAnswer
	final, err := e.watchHub(ctx, h, j, spec, after, func(rec feedback.Record) {
		if a, ok := job.CallAnswerOf(rec); ok {
			answers = append(answers, a)
		}
	})
	switch {
	case spec.Kind == job.Call:
		if shown := e.showAnswers(spec.Call, answers, diff); shown != nil {
			return shown
		}
		return callError(final, err)
	case err != nil && spec.Kind == job.Copy:
		return e.printIncomplete(err, spec.To.String())
	case err != nil:
		return err
	}
	return e.printFinal(spec, final)
}

// watchHub shows a job's feed. Ctrl-C asks; the job goes on unless the answer is
// to cancel it.
func (e *env) watchHub(ctx context.Context, h *hub, j *api.Job, spec job.Spec, after int64, seen func(feedback.Record)) (feedback.Record, error) {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	without := "Master " + h.name + " goes on without this command."
	if j.Driver != "" {
		without = j.Driver + " drives the job, also without this command."
	}
	stop := e.interrupted(without, false, leave, func() {
		if _, err := h.Cancel(ctx, j.ID); err != nil && ctx.Err() == nil {
			fmt.Fprintf(e.Stderr, "gantry: %s\n", feedback.Printable(err.Error()))
		}
	})
	defer stop()
	show, end := e.shower(leave, spec)
	final, err := h.Watch(ctx, j.ID, after, func(err error, wait time.Duration) {
		if !e.json {
			_ = show(feedback.Record{Kind: feedback.KindLog, Time: e.Now(), Body: &feedback.Log{Level: "warn", Text: err.Error() + "; attaching again"}})
		}
	}, func(rec feedback.Record) error {
		seen(rec)
		return show(rec)
	})
	end()
	short := shortID(j.ID)
	if errors.Is(context.Cause(ctx), job.ErrLeft) {
		return final, &coded{api.ExitLeft, fmt.Errorf("left job %s, which goes on at master %s: gantry watch %s shows it, gantry cancel %s ends it", short, h.name, short, short)}
	}
	if _, ok := errors.AsType[*client.UnknownError](err); ok {
		return final, fmt.Errorf("%w; gantry watch %s asks again", err, short)
	}
	if wire, ok := final.Body.(*feedback.Error); ok && err == nil {
		err = wire
	}
	return final, err
}

// shortID is what a job is called where people read.
func shortID(id string) string { return feedback.Printable(id[max(0, len(id)-8):]) }

// names says whether what a user typed means this job.
func names(typed, id string) bool {
	return typed != "" && (strings.HasPrefix(id, typed) || strings.HasSuffix(id, typed))
}
