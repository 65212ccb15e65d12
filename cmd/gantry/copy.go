package main

import (
	"fmt"
	"path/filepath"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
)

func newCopyCommand(e *env) *cobra.Command {
	var m moving
	var q queued
	var pull, push bool
	cmd := &cobra.Command{
		Use: "copy NODE:RESOURCE[/PATH] NODE:RESOURCE[/PATH]", Short: "Copy from node to node",
		Long: "Copy from node to node. The destination proves every piece and publishes the file in one step. It pulls where it\n" +
			"can dial the source; else the source pushes, where that can dial the destination.\n" +
			"A target that has the same content already is left alone. NODE:RESOURCE alone names a whole tree, a device\n" +
			"or a command.",
		Example: "  gantry copy alpha:disks/vm1.img beta:disks/vm1.img",
		Args:    wantArgs(2),
	}
	m.flags(cmd)
	m.targetFlags(cmd)
	cmd.Flags().BoolVar(&pull, "pull", false, "let the destination dial the source, without asking whether it can")
	cmd.Flags().BoolVar(&push, "push", false, "let the source dial the destination, without asking whether it can")
	q.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec, err := m.spec(cmd, job.Copy)
		if err != nil {
			return err
		}
		switch {
		case pull && push:
			return misused(cmd, "--pull and --push are two directions; choose one, or none")
		case pull:
			spec.Way = job.Pull
		case push:
			spec.Way = job.Push
		}
		o, from, err := e.addressed(cmd, args[0])
		if err != nil {
			return err
		}
		defer o.close()
		to, err := parseAddress(cmd, o.cluster, args[1])
		if err != nil {
			return err
		}
		if from.String() == to.String() {
			return misused(cmd, "source and target are the same")
		}
		spec.Cluster, spec.From, spec.To = o.cluster.Name, from.place(), to.place()
		if done, err := e.byMaster(cmd, o, spec, &q, false); done || err != nil {
			return err
		}
		final, err := e.begin(cmd, o, spec, m.fresh)
		if err != nil {
			return e.printIncomplete(err, to.String())
		}
		return e.printMoved(final, to.String())
	}
	return cmd
}

func newExportCommand(e *env) *cobra.Command {
	var m moving
	cmd := &cobra.Command{
		Use: "export NODE:RESOURCE[/PATH] FILE|-", Short: "Bring a file from a node here, or to standard output",
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
		o, from, err := e.addressed(cmd, args[0])
		if err != nil {
			return err
		}
		defer o.close()
		spec.Cluster, spec.From = o.cluster.Name, from.place()
		final, err := e.begin(cmd, o, spec, m.fresh)
		if err != nil || spec.Local == job.Stdout {
			return e.printIncomplete(err, spec.Local)
		}
		return e.printMoved(final, spec.Local)
	}
	return cmd
}

func newDigestCommand(e *env) *cobra.Command {
	var full bool
	var q queued
	cmd := &cobra.Command{
		Use: "digest NODE:RESOURCE/PATH", Short: "Print a file's BLAKE3 digest, computed where it is",
		Example: "  gantry digest alpha:disks/vm1.img",
		Args:    wantArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, from, err := e.addressed(cmd, args[0])
			if err != nil {
				return err
			}
			defer o.close()
			spec := job.Spec{Kind: job.Digest, Cluster: o.cluster.Name, From: from.place(), Full: full}
			if done, err := e.byMaster(cmd, o, spec, &q, false); done || err != nil {
				return err
			}
			final, err := e.begin(cmd, o, spec, false)
			if err != nil {
				return err
			}
			return e.printDigest(final, from.String())
		},
	}
	cmd.Flags().BoolVar(&full, "full", false, "forget first what earlier tasks recorded, which --trust-mtime would believe")
	q.flags(cmd)
	return cmd
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
