package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"

	"github.com/go-json-experiment/json"
	"github.com/pmezard/go-difflib/difflib"
	"github.com/spf13/cobra"
)

// callResult is what a call's final error says about all nodes.
func callResult(wire *feedback.Error) (r api.CallResult, ok bool) {
	ok = len(wire.Detail) > 0 && json.Unmarshal(wire.Detail, &r) == nil && r.Nodes > 0
	return r, ok
}

// showAnswers prints the answers to a call, equal ones once, on stdout; those of
// nodes that are not done come last. With --json the feed has said it all.
func (e *env) showAnswers(spec *api.CallSpec, answers []job.NodeAnswer, diff bool) error {
	if e.json {
		return nil
	}
	groups := job.FoldAnswers(spec.Op, answers)
	for i, g := range groups {
		text := g.Text
		switch {
		case g.Outcome != api.Done:
			text = feedback.Printable(text)
		case text == "{}":
			text = ""
		case diff && i > 0:
			text = difference(groups[0], g)
		}
		if err := e.showGroup(g, text); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) showGroup(g job.Group, text string) error {
	head := fmt.Sprintf("%s: %s", feedback.Printable(g.Set()), g.Outcome)
	if len(g.Nodes) > 1 {
		head += fmt.Sprintf(" (%d)", len(g.Nodes))
	}
	if g.Outcome != api.Done {
		_, err := fmt.Fprintf(e.Stdout, "%s: %s\n", head, text)
		return err
	}
	if _, err := fmt.Fprintln(e.Stdout, head); err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		if _, err := fmt.Fprintln(e.Stdout, "  "+feedback.Printable(strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

// difference is what has to change in the base's answer to be the other's, as
// diff -u shows it.
func difference(base, other job.Group) string {
	text, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(base.Text), B: difflib.SplitLines(other.Text),
		FromFile: base.Set(), ToFile: other.Set(), Context: 2,
	})
	if err != nil {
		return other.Text
	}
	return text
}

// retryable are the outcomes that retry --only may name.
var retryable = []string{
	string(api.Failed), string(api.Refused), string(api.Cancelled), string(api.Unknown),
	string(api.Unreachable), string(api.PinMismatch), string(api.NotTried),
}

func newRetryCommand(e *env) *cobra.Command {
	var f calling
	var only []string
	var from choice
	var detach bool
	cmd := &cobra.Command{
		Use: "retry [JOB]", Short: "Call nodes of a call again that were not done, or run a master's job again",
		Long: "Call those nodes of a call again that were not done, by the outcomes that were recorded. Without JOB it is the last\n" +
			"call. Other jobs go on, or begin again, with the command that began them; those of a master are run again as new jobs.",
		Example: "  gantry retry --only failed,unknown",
		Args:    wantArgs(0, 1), ValidArgsFunction: e.completeJobs,
	}
	f.flags(cmd)
	cmd.Flags().StringSliceVar(&only, "only", nil, "nodes with these `OUTCOMES`: "+strings.Join(retryable, ", ")+" (default all that are not done)")
	from = choice{allowed: []string{api.FromPublish}}
	cmd.Flags().Var(&from, "from", "at the master: `publish` goes on with what the last attempt brought and did not publish")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "print the job's id and leave it to the master")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var outcomes []api.Outcome
		for _, s := range only {
			if !slices.Contains(retryable, s) {
				return misused(cmd, "--only %q is no outcome to try again; there are %s%s", s, strings.Join(retryable, ", "), near(s, retryable))
			}
			outcomes = append(outcomes, api.Outcome(s))
		}
		if len(args) == 1 {
			h, j, err := e.atHub(cmd, args[0])
			if err != nil {
				return err
			}
			if h != nil {
				defer h.Close()
				return e.retryHub(cmd, h, j, from.value, outcomes, &f, detach)
			}
		}
		if err := onlyAtHub(cmd, "from", "detach"); err != nil {
			return err
		}
		spec, err := e.callAgain(args, outcomes)
		if err != nil {
			return err
		}
		if err := f.apply(cmd, spec); err != nil {
			return err
		}
		return e.again(cmd.Context(), spec, f.diff)
	}
	return cmd
}

func (e *env) again(ctx context.Context, spec *api.CallSpec, diff bool) error {
	o, err := e.operator()
	if err != nil {
		return err
	}
	defer o.close()
	return e.call(ctx, o, spec, diff)
}

// callAgain is the call of those nodes of an earlier one that had one of the
// outcomes.
func (e *env) callAgain(args []string, only []api.Outcome) (*api.CallSpec, error) {
	store, err := e.store()
	if err != nil {
		return nil, err
	}
	var info *job.Info
	if len(args) == 1 {
		if info, err = named(store, args[0]); err != nil {
			return nil, err
		}
	} else {
		infos, err := store.List()
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(infos, func(i *job.Info) bool { return i.Spec.Kind == job.Call })
		if i < 0 {
			return nil, notFound("there is no call to try again; gantry jobs lists what was started here")
		}
		info = infos[i]
	}
	if info.Spec.Call == nil {
		return nil, refusedHere("job %s is no call; the same command goes on with it or begins it again: gantry %s", info.Short(), info.Spec)
	}
	j, err := store.Open(info.ID)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	answers, err := j.Answers()
	if err != nil {
		return nil, err
	}
	spec, ok := job.RetryCall(info.Spec.Call, info.ID, answers, only)
	if !ok {
		return nil, refusedHere("no node of job %s has such an outcome: nothing to try again", info.Short())
	}
	return spec, nil
}
