package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/job"
	"gantry/transfer"

	"github.com/spf13/cobra"
)

// demoSize is long enough to see something, and short enough for a laptop.
const demoSize = "1GiB"

// maxDemoCuts keeps cuts further apart than the buffers of a connection.
const maxDemoCuts = 100

// demo is one run of gantry demo.
type demo struct {
	env   *env
	out   io.Writer // what people read; stderr under --json
	file  string
	size  string
	front string
	dir   string
	send  string
	cuts  int
	hub   bool // through a master, which is killed on the way

	cluster *cluster.Cluster
	kind    front.Kind
	name    string // of the file within the resource
	bytes   int64
}

func newDemoCommand(e *env) *cobra.Command {
	d := &demo{env: e}
	cmd := &cobra.Command{
		Use:   "demo [FILE]",
		Short: "Copy a file between two nodes of a throw-away cluster on this machine",
		Long: `Makes a throw-away cluster of two nodes, alpha and beta, each behind its own
front, copies FILE (or random data) from one to the other over mutual TLS and
FastCGI, and shows every step. Nothing is left running, and nothing is left on
disk unless --dir says where to keep it.`,
		Example: "  gantry demo\n  gantry demo --cut 3 --front nginx\n  gantry demo vm1.img --dir /var/tmp/demo",
		Args:    wantArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				d.file = args[0]
			}
			return d.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.size, "size", demoSize, "bytes of random data when no FILE is named")
	f.StringVar(&d.front, "front", "auto", "auto, embedded, lighttpd or nginx")
	f.IntVar(&d.cuts, "cut", 0, "how many bulk connections to cut on the way")
	f.StringVar(&d.dir, "dir", "", "new folder in which to keep everything")
	f.BoolVar(&d.hub, "master", false, "copy through a master, and kill it (SIGKILL) half way")
	f.StringVar(&d.send, "send", "stream", "who sends the bytes: stream (the responder) or front")
	return cmd
}

// run makes the cluster, copies, and ends the cluster, whatever happened.
func (d *demo) run(cmd *cobra.Command) (err error) {
	d.out = d.env.Stdout
	if d.env.json {
		d.out = d.env.Stderr
	}
	if d.env.quiet {
		d.out = io.Discard
	}
	if err := d.check(cmd); err != nil {
		return err
	}
	// A terminal that is closed ends the reader, not the demo: it cleans up.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	defer func() {
		if d.cluster == nil {
			return
		}
		if closeErr := d.cluster.Close(); closeErr != nil && err == nil {
			err = fmt.Errorf("ending the demo's cluster: %w", closeErr)
		}
	}()
	if err := d.prepare(cmd.Context()); err != nil {
		return err
	}
	return d.copy(cmd.Context())
}

// check reads the flags.
func (d *demo) check(cmd *cobra.Command) (err error) {
	if d.bytes, err = parseSize(d.size); err != nil {
		return misused(cmd, "--size %s: %v", d.size, err)
	}
	if d.cuts < 0 || d.cuts > maxDemoCuts {
		return misused(cmd, "--cut %d: want 0 to %d", d.cuts, maxDemoCuts)
	}
	if d.send != "stream" && d.send != "front" {
		return misused(cmd, "--send %s: want stream or front", d.send)
	}
	d.name = "random.img"
	if d.file != "" {
		d.name = filepath.Base(d.file)
		info, err := os.Stat(d.file)
		if err != nil {
			return notFound("reading FILE: %w", err)
		}
		if !info.Mode().IsRegular() {
			return misused(cmd, "%s is not a regular file", d.file)
		}
		if err := transfer.CheckName(d.name); err != nil {
			return misused(cmd, "%v", err)
		}
		d.bytes = info.Size()
	}
	d.kind = front.Kind(d.front)
	if d.front == "auto" {
		d.kind = pickFront()
		return nil
	}
	if !slices.Contains(front.Kinds, d.kind) {
		return misused(cmd, "--front %s: want auto, embedded, lighttpd or nginx", d.front)
	}
	if d.kind != front.EmbeddedServer {
		_, err = front.Program(d.kind)
	}
	return err
}

// pickFront takes what is installed.
func pickFront() front.Kind {
	for _, k := range []front.Kind{front.Lighttpd, front.Nginx} {
		if _, err := front.Program(k); err == nil {
			return k
		}
	}
	return front.EmbeddedServer
}

// prepare makes cluster and source file, gives up root, and starts the
// servers. A signal ends it.
func (d *demo) prepare(ctx context.Context) (err error) {
	ctx, stop := d.env.untilInterrupted(ctx)
	defer stop()
	d.cluster, err = cluster.New(cluster.Options{
		Program: d.env.Executable, Front: d.kind, Dir: d.dir, Send: d.send, Proxied: d.cuts > 0 || d.hub, Master: d.master(),
		Env: []string{"PATH=" + d.env.Getenv("PATH"), "LANG=C", "TMPDIR=" + os.TempDir()},
	})
	if err != nil {
		return err
	}
	if err := d.cluster.Room(d.bytes); err != nil {
		return err
	}
	if err := d.source(ctx); err != nil {
		return err
	}
	// The last thing that needed root is done: the keepers hold their uids.
	if err := cluster.Become(cluster.OperatorUID); err != nil {
		return err
	}
	if err := d.cluster.Start(ctx); err != nil {
		return err
	}
	who := "two nodes, alpha and beta, each"
	if d.hub {
		who = "two nodes, alpha and beta, and a master, hub, each"
	}
	fmt.Fprintf(d.out, "%s behind %s; %s\n", who, d.frontText(), d.cluster.Who())
	fmt.Fprintf(d.out, "folder  %s\n", d.cluster.Dir())
	return nil
}

func (d *demo) frontText() string {
	if d.kind == front.EmbeddedServer {
		return "the embedded front"
	}
	return string(d.kind)
}

// source puts FILE, or random data, into alpha's resource.
func (d *demo) source(ctx context.Context) error {
	if d.file != "" {
		f, err := os.Open(d.file)
		if err != nil {
			return notFound("reading FILE: %w", err)
		}
		defer f.Close()
		return d.cluster.CreateFile("alpha", d.name, cluster.FillFrom(ctx, f))
	}
	seed := rand.Uint64()
	fmt.Fprintf(d.out, "making %s of random data, seed %d\n", d.size, seed)
	return d.cluster.CreateFile("alpha", d.name, func(f *os.File) error {
		return cluster.Fill(ctx, f, cluster.Random(seed, d.bytes))
	})
}

// copy runs the same command as a person would, with the operator's home, and
// then has both nodes read their file again.
func (d *demo) copy(ctx context.Context) error {
	if d.cuts > 0 {
		d.cluster.Proxy("alpha").Cut(d.cuts, d.bytes)
	}
	if d.hub {
		return d.copyByMaster(ctx)
	}
	from, to := "alpha:"+cluster.Resource+"/"+d.name, "beta:"+cluster.Resource+"/"+d.name
	args := []string{"--home", d.cluster.Home(), "copy", from, to}
	for flag, on := range map[string]bool{"--json": d.env.json, "--quiet": d.env.quiet} {
		if on {
			args = append(args, flag)
		}
	}
	sub := *d.env
	sub.Getenv = d.getenv
	if !d.env.json {
		sub.Stdout = io.Discard // report says the same and more
	}
	if code := run(ctx, &sub, args); code != api.ExitDone {
		return &coded{code, errors.New("")} // run has said why
	}
	store, err := job.OpenStore(filepath.Join(d.cluster.State(), "gantry", "jobs"))
	if err != nil {
		return err
	}
	result, err := copyResult(store)
	if err != nil {
		return err
	}
	return d.report(ctx, result)
}

// report prints what became of the copy, and fails if the two files differ.
func (d *demo) report(ctx context.Context, result *api.ImportResult) error {
	ctx, stop := d.env.untilInterrupted(ctx)
	defer stop()
	var err error
	var digests [2]string
	for i, node := range []string{"alpha", "beta"} {
		if digests[i], err = d.digest(ctx, node); err != nil {
			return fmt.Errorf("reading the file of %s again: %w", node, err)
		}
	}
	fmt.Fprintf(d.out, "source  %s  %s\ncopy    %s  %s\n", digests[0], d.cluster.Path("alpha", d.name), digests[1], d.cluster.Path("beta", d.name))
	b := result.Bytes
	fmt.Fprintf(d.out, "bytes   %d: fetched %d, hole %d, copied %d, reflinked %d, carried %d; %d over the wire\n",
		result.Size, b.Fetched, b.Hole, b.Copied, b.Reflinked, b.Carried, result.Wire)
	fmt.Fprintf(d.out, "rate    %.0f MB/s, %.2f s, verified on the %s\ncuts    %d of %d\n",
		result.Rate/1e6, result.Seconds, result.Verified, result.Cuts, d.cuts)
	if d.dir == "" {
		fmt.Fprintln(d.out, "folder  removed; --dir keeps it")
	} else {
		fmt.Fprintf(d.out, "folder  %s\n", d.cluster.Dir())
	}
	if digests[0] != digests[1] || digests[0] != result.Digest {
		return api.DigestMismatch.Err(fmt.Sprintf("source %s, copy %s, job %s", digests[0], digests[1], result.Digest))
	}
	return nil
}

// copyResult is the result of the newest job.
func copyResult(store *job.Store) (*api.ImportResult, error) {
	jobs, err := store.List()
	if err != nil {
		return nil, err
	}
	if len(jobs) == 0 {
		return nil, errors.New("the copy left no job")
	}
	return resultIn(jobs[0].Final)
}

// resultIn is the result in a job's final record.
func resultIn(line []byte) (*api.ImportResult, error) {
	final, err := feedback.Decode(line)
	if err != nil {
		return nil, fmt.Errorf("reading the job's result: %w", err)
	}
	body, ok := final.Body.(*feedback.Result)
	if !ok {
		return nil, fmt.Errorf("the job's final record is of kind %s", final.Kind)
	}
	var result api.ImportResult
	if err := api.DecodeBytes(body.Value, &result); err != nil {
		return nil, fmt.Errorf("reading the job's result: %w", err)
	}
	return &result, nil
}

// digest has a node read its file.
func (d *demo) digest(ctx context.Context, node string) (string, error) {
	c := d.cluster.Client(node)
	defer c.Close()
	req := api.TaskRequest{ID: api.NewID(), Op: api.OpDigest, Args: api.Encode(api.DigestArgs{
		File: api.File{Resource: cluster.Resource, Path: d.name},
	})}
	final, err := c.Follow(ctx, client.Run{Request: &req}, func(feedback.Record) error { return nil })
	if err != nil {
		return "", err
	}
	switch body := final.Body.(type) {
	case *feedback.Error:
		return "", body
	case *feedback.Result:
		var result api.DigestResult
		err := api.DecodeBytes(body.Value, &result)
		return result.Digest, err
	}
	return "", fmt.Errorf("the final record is of kind %s", final.Kind)
}

// getenv is the environment with the operator's folders in the cluster's.
func (d *demo) getenv(key string) string {
	switch key {
	case "XDG_STATE_HOME":
		return d.cluster.State()
	case "XDG_CONFIG_HOME", "HOME":
		return d.cluster.Home()
	}
	return d.env.Getenv(key)
}

// parseSize reads a number of bytes with an optional unit.
func parseSize(s string) (int64, error) {
	units := []struct {
		suffix string
		factor int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > 1<<50/u.factor {
			break
		}
		return n * u.factor, nil
	}
	return 0, errors.New("want a number of bytes with unit B, KiB, MiB, GiB or TiB, such as 256MiB")
}
