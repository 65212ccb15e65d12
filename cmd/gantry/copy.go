package main

import (
	"fmt"
	"path/filepath"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/progress"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
)

// moving is the flags of copy and export.
type moving struct {
	replace, fresh bool
	expect         string
}

func (m *moving) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&m.replace, "replace", false, "replace a target that exists; the old file stays until the new one is complete")
	cmd.Flags().BoolVar(&m.fresh, "new", false, "start afresh, even if the same command has an unfinished job")
	cmd.Flags().StringVar(&m.expect, "expect", "", "publish only content with this `digest` (b3:…, as gantry digest and b3sum print it)")
}

func (m *moving) spec(cmd *cobra.Command, kind string) (job.Spec, error) {
	if !checkExpect(m.expect) {
		return job.Spec{}, misused(cmd, "--expect wants b3: and 64 lower-case hex digits, not %q", m.expect)
	}
	s := job.Spec{Kind: kind, Mode: api.ModeCreate, Expect: m.expect}
	if m.replace {
		s.Mode = api.ModeReplace
	}
	return s, nil
}

func newCopyCommand(e *env) *cobra.Command {
	var m moving
	cmd := &cobra.Command{
		Use: "copy NODE:RESOURCE/PATH NODE:RESOURCE/PATH", Short: "Copy a file from node to node",
		Long: "Copy a file from node to node. The destination pulls, proves every piece and publishes the file in one step.\n" +
			"A target that has the same content already is left alone.",
		Example: "  gantry copy alpha:disks/vm1.img beta:disks/vm1.img",
		Args:    wantArgs(2),
	}
	m.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec, err := m.spec(cmd, job.Copy)
		if err != nil {
			return err
		}
		o, err := e.operator()
		if err != nil {
			return err
		}
		defer o.close()
		from, err := parseAddress(cmd, o.cluster, args[0], false)
		if err != nil {
			return err
		}
		to, err := parseAddress(cmd, o.cluster, args[1], false)
		if err != nil {
			return err
		}
		if from.String() == to.String() {
			return misused(cmd, "source and target are the same")
		}
		spec.Cluster, spec.From, spec.To = o.cluster.Name, from.place(), to.place()
		final, err := e.begin(cmd.Context(), o, spec, m.fresh)
		if err != nil {
			return err
		}
		return e.printMoved(final, to.String())
	}
	return cmd
}

func newExportCommand(e *env) *cobra.Command {
	var m moving
	cmd := &cobra.Command{
		Use: "export NODE:RESOURCE/PATH FILE|-", Short: "Bring a file from a node here, or to standard output",
		Long: "Bring a file from a node here, with mode 0600, or write it to standard output in order. Every piece is proved\n" +
			"before it is written. Exit code 0 alone says that all of it was.",
		Example: "  gantry export alpha:disks/vm1.img vm1.img\n  gantry export alpha:disks/vm1.img - | zstd > vm1.zst",
		Args:    wantArgs(2),
	}
	m.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec, err := m.spec(cmd, job.Export)
		if err != nil {
			return err
		}
		spec.Local = args[1]
		switch _, terminal := e.IsTerminal(e.Stdout); {
		case spec.Local == job.Stdout && e.json:
			return misused(cmd, "--json and an export to standard output both want standard output")
		case spec.Local == job.Stdout && terminal:
			return misused(cmd, "standard output is a terminal; redirect it, or name a file")
		case spec.Local == "":
			return misused(cmd, "the file's name is empty")
		case spec.Local != job.Stdout:
			if spec.Local, err = filepath.Abs(spec.Local); err != nil {
				return err
			}
		}
		o, err := e.operator()
		if err != nil {
			return err
		}
		defer o.close()
		from, err := parseAddress(cmd, o.cluster, args[0], false)
		if err != nil {
			return err
		}
		spec.Cluster, spec.From = o.cluster.Name, from.place()
		final, err := e.begin(cmd.Context(), o, spec, m.fresh)
		if err != nil || spec.Local == job.Stdout {
			return err
		}
		return e.printMoved(final, spec.Local)
	}
	return cmd
}

func newDigestCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "digest NODE:RESOURCE/PATH", Short: "Print a file's BLAKE3 digest, computed where it is",
		Example: "  gantry digest alpha:disks/vm1.img",
		Args:    wantArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := e.operator()
			if err != nil {
				return err
			}
			defer o.close()
			from, err := parseAddress(cmd, o.cluster, args[0], false)
			if err != nil {
				return err
			}
			final, err := e.begin(cmd.Context(), o, job.Spec{Kind: job.Digest, Cluster: o.cluster.Name, From: from.place()}, false)
			if err != nil {
				return err
			}
			return e.printDigest(final, from.String())
		},
	}
}

func (a address) place() job.Place { return job.Place{Node: a.Node.Name, File: a.File} }

func (e *env) printDigest(final feedback.Record, name string) error {
	var r api.DigestResult
	if err := e.result(final, &r); err != nil || e.json {
		return err
	}
	_, err := fmt.Fprintf(e.Stdout, "%s  %s\n", r.Digest, feedback.Printable(name))
	return err
}

// printMoved says what a copy or export did.
func (e *env) printMoved(final feedback.Record, target string) error {
	var r api.ImportResult
	if err := e.result(final, &r); err != nil || e.json || e.quiet {
		return err
	}
	text := fmt.Sprintf("%s: %s, %s", feedback.Printable(target), r.Target, progress.Bytes(r.Size))
	if r.Target != api.TargetThere {
		text += fmt.Sprintf(" in %s, %s", progress.Duration(time.Duration(r.Seconds*float64(time.Second))), progress.Rate(r.Rate))
	}
	text += "\n" + r.Digest + "\n"
	carried := "carried over from an earlier run"
	if r.Target == api.TargetThere {
		carried = "compared, nothing moved"
	}
	for _, part := range []struct {
		n    int64
		what string
	}{
		{r.Bytes.Fetched, "fetched"}, {r.Bytes.Carried, carried}, {r.Bytes.Copied, "copied from the old file"},
		{r.Bytes.Reflinked, "shared with the old file"}, {r.Bytes.Hole, "holes and zeros, not sent"},
	} {
		if part.n > 0 {
			text += fmt.Sprintf("  %s %s\n", progress.Bytes(part.n), part.what)
		}
	}
	if r.Cuts > 0 {
		text += fmt.Sprintf("  %d connections were cut and resumed\n", r.Cuts)
	}
	_, err := fmt.Fprint(e.Stdout, text)
	return err
}

// result decodes the value of a job that is done.
func (e *env) result(final feedback.Record, into any) error {
	r, ok := final.Body.(*feedback.Result)
	if !ok {
		return fmt.Errorf("the final record is of kind %q", final.Kind)
	}
	if err := json.Unmarshal(r.Value, into); err != nil {
		return fmt.Errorf("reading the result: %w", err)
	}
	return nil
}
