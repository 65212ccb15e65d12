package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/job"
	"gantry/nodeset"
	"gantry/pki"

	"github.com/spf13/cobra"
)

// calling is the flags of what calls many nodes.
type calling struct {
	exclude   string
	window    int
	timeout   time.Duration
	waves     []string
	maxFailed string
	sample    int
	seed      uint64
	full      bool
	diff      bool
}

func (f *calling) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVarP(&f.window, "window", "w", 0, fmt.Sprintf("call `N` nodes at a time, 1 to %d (default %d)", api.MaxCallWindow, client.DefaultWindow))
	flags.DurationVar(&f.timeout, "timeout", 0, "wait for each node so `LONG` (default 30s, for a digest 1h)")
	flags.StringSliceVar(&f.waves, "waves", nil, "call in `WAVES`, such as 1,10%,rest; one begins when the one before has ended")
	flags.StringVar(&f.maxFailed, "max-failed", "", "begin no further node when more than `N` (or N%) are not done")
	flags.BoolVar(&f.diff, "diff", false, "show how answers differ from the one that most nodes gave")
}

func newCallCommand(e *env) *cobra.Command {
	var f calling
	var q queued
	var ops strings.Builder
	for _, op := range api.CallOps {
		ops.WriteString("  " + op.Usage + "\n")
	}
	cmd := &cobra.Command{
		Use: "call NODES OPERATION [ARGUMENT]", Short: "Ask many nodes at once",
		Long: "Ask many nodes at once. NODES is a set: names with commas, ranges, groups of cluster.toml, and ! before what is\n" +
			"left out, such as n[1-20],@mail,!n7; * is all of them. Each node has its own outcome and holds up no other; equal\n" +
			"answers are shown once. Ctrl-C keeps what came and names who did not answer. Operations:\n\n" + ops.String(),
		Example: "  gantry call '*' status\n  gantry call @mail digest disks/golden.img --timeout 10m\n  gantry call 'n[1-200]' crl --waves 1,10%,rest --max-failed 2",
		Args:    wantArgs(2, 3),
	}
	f.flags(cmd)
	cmd.Flags().StringVarP(&f.exclude, "exclude", "x", "", "leave out these `NODES`")
	cmd.Flags().IntVar(&f.sample, "sample", 0, "call `N` of the nodes, chosen at random")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "`SEED` of --sample, to choose the same again")
	cmd.Flags().BoolVar(&f.full, "full", false, "of digest: forget first what was recorded before")
	q.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := e.operator()
		if err != nil {
			return err
		}
		defer o.close()
		spec, err := f.spec(cmd, e, o, args)
		if err != nil {
			return err
		}
		if done, err := e.byMaster(cmd, o, job.Spec{Kind: job.Call, Cluster: o.cluster.Name, Call: spec}, &q, f.diff); done || err != nil {
			return err
		}
		return e.call(cmd.Context(), o, spec, f.diff)
	}
	return cmd
}

// selectNodes reads a set of nodes. A set that cannot be meant is misuse, one
// that names what there is not is not found.
func selectNodes(cmd *cobra.Command, cluster *config.Cluster, set, exclude string) ([]string, error) {
	if exclude != "" {
		out, err := cluster.Select(exclude)
		if err != nil {
			return nil, setError(cmd, err)
		}
		for _, n := range out {
			set += ",!" + n
		}
	}
	nodes, err := cluster.Select(set)
	if err != nil {
		return nil, setError(cmd, err)
	}
	return nodes, nil
}

func setError(cmd *cobra.Command, err error) error {
	if errors.Is(err, nodeset.ErrUnknown) {
		return &coded{api.ExitNotFound, err}
	}
	return misused(cmd, "%v", err)
}

// spec is the call that the command line asks for.
func (f *calling) spec(cmd *cobra.Command, e *env, o *operator, args []string) (*api.CallSpec, error) {
	nodes, err := selectNodes(cmd, o.cluster, args[0], f.exclude)
	if err != nil {
		return nil, err
	}
	op := api.CallOpOf(args[1])
	if op == nil {
		var known []string
		for _, o := range api.CallOps {
			known = append(known, o.Name)
		}
		return nil, misused(cmd, "there is no operation %q; there are %s%s", args[1], strings.Join(known, ", "), near(args[1], known))
	}
	s := &api.CallSpec{Nodes: nodes, Op: op.Name, Sample: f.sample, Seed: f.seed}
	s.Args.Full = f.full
	argument := ""
	if len(args) == 3 {
		argument = args[2]
	}
	switch op.Name {
	case api.CallList, api.CallCheck, api.CallDigest:
		s.Args.Resource, s.Args.Path, _ = strings.Cut(argument, "/")
	case api.CallReach:
		s.Args.Node = argument
	case api.CallCRL:
		if s.Args.CRL, err = readCRL(o, argument); err != nil {
			return nil, err
		}
	default:
		if argument != "" {
			return nil, misused(cmd, "%q is one argument too many; write gantry call NODES %s", argument, op.Usage)
		}
	}
	if f.sample > 0 && !cmd.Flags().Changed("seed") {
		var b [8]byte
		rand.Read(b[:])
		s.Seed = binary.BigEndian.Uint64(b[:]) >> 32 // short enough to be typed again
	}
	return s, f.apply(cmd, s)
}

// apply adds the flags that a retry has too, and refuses what cannot be meant.
func (f *calling) apply(cmd *cobra.Command, s *api.CallSpec) error {
	changed := cmd.Flags().Changed
	switch {
	case changed("window") && f.window <= 0:
		return misused(cmd, "--window wants 1 to %d", api.MaxCallWindow)
	case changed("timeout") && (f.timeout < time.Second || f.timeout%time.Second != 0):
		return misused(cmd, "--timeout wants whole seconds, such as 30s or 5m")
	case changed("sample") && f.sample <= 0:
		return misused(cmd, "--sample wants a number of nodes above 0")
	}
	if changed("window") {
		s.Window = f.window
	}
	if changed("timeout") {
		s.Timeout = int64(f.timeout / time.Second)
	}
	if changed("waves") {
		s.Waves = f.waves
	}
	if changed("max-failed") {
		s.MaxFailed = f.maxFailed
	}
	if wire, ok := errors.AsType[*feedback.Error](job.CheckCall(s)); ok {
		field, text, _ := strings.Cut(strings.TrimPrefix(wire.Message, "/call/"), ": ")
		field, _, _ = strings.Cut(strings.ReplaceAll(field, "_", "-"), "/")
		return misused(cmd, "%s: %s", field, text)
	}
	return nil
}

// readCRL is the list in a file, PEM or DER; by default the caller's own.
func readCRL(o *operator, path string) ([]byte, error) {
	if path == "" {
		path = filepath.Join(o.home, pki.CRLFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the revocation list: %w", err)
	}
	crl, err := pki.ParseCRL(data, o.identity.CA)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return crl.DER, nil
}

// call makes the job of a call, drives it and shows what came of it.
func (e *env) call(ctx context.Context, o *operator, spec *api.CallSpec, diff bool) error {
	store, err := e.store()
	if err != nil {
		return err
	}
	if err := store.Sweep(); err != nil {
		return err
	}
	j, _, err := store.Begin(job.Spec{Kind: job.Call, Cluster: o.cluster.Name, Call: spec}, true)
	if err != nil {
		return err
	}
	defer j.Close()
	if spec.Sample > 0 {
		if err := e.say("%d of %d nodes, chosen by --seed %d", spec.Sample, len(spec.Nodes), spec.Seed); err != nil {
			return err
		}
	}
	return e.driveCall(ctx, o, j, diff)
}

// driveCall drives a call, or goes on with one, and shows every answer that came.
func (e *env) driveCall(ctx context.Context, o *operator, j *job.Job, diff bool) error {
	final, err := e.drive(ctx, o, nil, j, nil)
	answers, readErr := j.Answers()
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if shown := e.showAnswers(j.Spec.Call, answers, diff); shown != nil {
		return shown
	}
	return callError(final, err)
}

// callError gives a call's error the exit code of its counts.
func callError(final feedback.Record, err error) error {
	wire, ok := final.Body.(*feedback.Error)
	if !ok {
		return err
	}
	if result, ok := callResult(wire); ok {
		return &coded{result.Exit(), err}
	}
	return err
}
