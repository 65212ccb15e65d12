package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/progress"

	"github.com/spf13/cobra"
)

func newVerifyCommand(e *env) *cobra.Command {
	var o job.Options
	var q queued
	cmd := &cobra.Command{
		Use: "verify NODE:RESOURCE[/PATH] NODE:RESOURCE[/PATH]|FILE", Short: "Compare without moving, and name what differs",
		Long: "Compare two files or two trees by what their nodes hash; no content moves and nothing is changed. Of files the\n" +
			"parts that differ are named, of trees the entries: content, type, link target, mode and mtime. Owners and extended\n" +
			"attributes are not compared. The second one may be a local file or directory. Exit code 0: equal, 1: different.",
		Example: "  gantry verify alpha:disks/vm1.img beta:disks/vm1.img\n  gantry verify alpha:mail beta:mail --exclude '*.lock'",
		Args:    wantArgs(2),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&o.Checksum, "checksum", "c", false, "read everything; believe neither times nor recorded digests")
	f.BoolVar(&o.TrustMTime, "trust-mtime", false, "believe recorded digests of files whose inode, size and times are unchanged")
	f.Var(rules{&o.Filter, "+ "}, "include", "take entries that match `PATTERN`, as rsync does; the order of these three counts")
	f.Var(rules{&o.Filter, "- "}, "exclude", "leave out entries that match `PATTERN`")
	f.Var(rules{&o.Filter, ""}, "filter", "a `RULE` as rsync writes it, such as '- *.tmp'")
	q.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.Checksum && o.TrustMTime {
			return misused(cmd, "--checksum reads everything, --trust-mtime believes what was read before; choose one")
		}
		op, err := e.operator()
		if err != nil {
			return err
		}
		defer op.close()
		spec := job.Spec{Kind: job.Verify, Cluster: op.cluster.Name, Options: o}
		if err := sides(cmd, op, args, &spec); err != nil {
			return err
		}
		if done, err := e.byMaster(cmd, op, spec, &q, false); done || err != nil {
			return err
		}
		final, err := e.begin(cmd, op, spec, true)
		if err != nil {
			return err
		}
		return e.printVerified(final, spec)
	}
	return cmd
}

// sides reads both arguments. What has a slash before any colon, or no colon, is
// a local path.
func sides(cmd *cobra.Command, op *operator, args []string, spec *job.Spec) error {
	from, err := parseAddress(cmd, op.cluster, args[0])
	if err != nil {
		return err
	}
	spec.From = from.place()
	if name, _, ok := strings.Cut(args[1], ":"); !ok || strings.Contains(name, "/") {
		if args[1] == "" {
			return misused(cmd, "the file's name is empty")
		}
		spec.Local, err = filepath.Abs(args[1])
		return err
	}
	to, err := parseAddress(cmd, op.cluster, args[1])
	if err == nil && from.String() == to.String() {
		return misused(cmd, "both sides are the same")
	}
	spec.To = to.place()
	return err
}

// printVerified says what a comparison found; a difference is exit code 1.
func (e *env) printVerified(final feedback.Record, spec job.Spec) error {
	var r api.VerifyResult
	if err := e.result(final, &r); err != nil {
		return err
	}
	if r.Kind == "" { // the final of one of its exports, seen by gantry watch
		return refusedHere("the other process says how they compare")
	}
	a, b := spec.From.String(), spec.To.String()
	if spec.Local != "" {
		b = spec.Local
	}
	if !e.json && !e.quiet {
		if _, err := fmt.Fprint(e.Stdout, verifiedText(&r, feedback.Printable(a), feedback.Printable(b))); err != nil {
			return err
		}
	}
	if !r.Equal {
		return &coded{api.ExitFailed, fmt.Errorf("%s and %s are different", a, b)}
	}
	return nil
}

// verifiedText describes a comparison for people.
func verifiedText(r *api.VerifyResult, a, b string) string {
	var t strings.Builder
	if r.Equal {
		fmt.Fprintf(&t, "equal: %s and %s, %s\n%s\n", a, b, progress.Bytes(r.A.Size), feedback.Printable(r.A.Digest))
		return t.String()
	}
	fmt.Fprintf(&t, "A %s: %s, %s\nB %s: %s, %s\n", a, progress.Bytes(r.A.Size), feedback.Printable(r.A.Digest),
		b, progress.Bytes(r.B.Size), feedback.Printable(r.B.Digest))
	for _, x := range r.Ranges {
		fmt.Fprintf(&t, "  bytes %d to %d differ\n", x.At, x.At+x.Len-1)
	}
	for _, d := range r.Differences {
		fmt.Fprintf(&t, "  %s: %s\n", feedback.Printable(d.Path), feedback.Printable(differenceText(d.What)))
	}
	if r.More > 0 {
		fmt.Fprintf(&t, "  and %d more\n", r.More)
	}
	if r.Counts == nil {
		fmt.Fprintf(&t, "%s in pieces that differ\n", progress.Bytes(r.Different))
		return t.String()
	}
	n := r.Counts
	fmt.Fprintf(&t, "%d entries are on both sides; different in content: %d, type: %d, target: %d, mode: %d, mtime: %d; only in A: %d, only in B: %d, not readable: %d\n",
		r.Entries, n.Content, n.Type, n.Target, n.Mode, n.MTime, n.OnlyA, n.OnlyB, n.Unread)
	return t.String()
}

// differenceText is the words of api.DifferentOne for people.
func differenceText(what []string) string {
	words := map[string]string{"only_a": "only in A", "only_b": "only in B", "unread": "not readable"}
	var text []string
	for _, w := range what {
		if said, ok := words[w]; ok {
			w = said
		}
		text = append(text, w)
	}
	return strings.Join(text, ", ")
}
