package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"gantry/front"
	"gantry/internal/cluster"
)

const (
	// peakSize is just below the greatest file of ext4 with blocks of 4 KiB.
	peakSize    = 16<<40 - 4096
	peakEntries = 1_000_000
	// peakTime bounds how long the sparse file is copied, and the slow reader reads.
	peakTime = 2 * time.Minute
)

// peaks measures the greatest memory of both responders in long work.
func (b *bench) peaks(ctx context.Context) error {
	kind := b.anyFront()
	fmt.Printf("\n### Peak memory of the responders (VmHWM), MiB, %s\n\n| work | source | target | |\n| --- | --- | --- | --- |\n", kind)
	for _, work := range []struct {
		name string
		run  func(context.Context, *cluster.Cluster) (string, error)
	}{
		{"sparse file of 16 TiB", b.peakSparse},
		{fmt.Sprintf("tree of %d empty files", peakEntries), b.peakTree},
		{"a reader of 1 MiB/s", b.peakSlow},
	} {
		if err := b.peak(ctx, kind, work.name, work.run); err != nil {
			return fmt.Errorf("%s: %w", work.name, err)
		}
	}
	return nil
}

// peak runs one work on a cluster of its own.
func (b *bench) peak(ctx context.Context, kind front.Kind, name string, run func(context.Context, *cluster.Cluster) (string, error)) error {
	source := filepath.Join(b.dir, "peak")
	if err := os.MkdirAll(source, 0o755); err != nil {
		return err
	}
	c, err := b.cluster(ctx, treeOptions(kind, source))
	if err != nil {
		return err
	}
	defer c.Close()
	note, err := run(ctx, c)
	if err != nil {
		return err
	}
	fmt.Printf("| %s | %.0f | %.0f | %s |\n", name, peakOf(c.Process("alpha/node").PID), peakOf(c.Process("beta/node").PID), note)
	return nil
}

// peakOf is the process's greatest resident memory, MiB.
func peakOf(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	m := regexp.MustCompile(`VmHWM:\s+(\d+)`).FindSubmatch(text)
	if m == nil {
		return 0
	}
	kib, _ := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024
}

// bounded runs a copy for at most peakTime.
func bounded(ctx context.Context, c *cluster.Cluster, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, peakTime)
	defer cancel()
	start := time.Now()
	err := operatorCommand(ctx, c, args...).Run()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Sprintf("after %v, not at its end", peakTime), nil
	}
	return fmt.Sprintf("whole, %.0f s", time.Since(start).Seconds()), err
}

func (b *bench) peakSparse(ctx context.Context, c *cluster.Cluster) (string, error) {
	path := c.Path("alpha", "huge.img")
	if err := shell(ctx, fmt.Sprintf("truncate -s %d %s; chmod 644 %[2]s", int64(peakSize), path)); err != nil {
		return "this file system has no file of that size", nil
	}
	return bounded(ctx, c, "copy", "--new", "--quiet", "alpha:disks/huge.img", "beta:disks/huge.img")
}

func (b *bench) peakTree(ctx context.Context, c *cluster.Cluster) (string, error) {
	dir := filepath.Join(b.dir, "peak", "million")
	for d := range 100 {
		sub := filepath.Join(dir, fmt.Sprintf("%02d", d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return "", err
		}
		for f := range peakEntries / 100 {
			if err := os.WriteFile(filepath.Join(sub, strconv.Itoa(f)), nil, 0o644); err != nil {
				return "", err
			}
		}
	}
	start := time.Now()
	err := operator(ctx, c, "copy", "--new", "--quiet", "alpha:trees/million", "beta:trees/million")
	return fmt.Sprintf("whole, %.0f s", time.Since(start).Seconds()), err
}

func (b *bench) peakSlow(ctx context.Context, c *cluster.Cluster) (string, error) {
	path := c.Path("alpha", "slow.img")
	if err := fill(path, 1<<30); err != nil {
		return "", err
	}
	if err := os.Chmod(path, 0o644); err != nil {
		return "", err
	}
	slow, cancel := context.WithTimeout(ctx, peakTime/4)
	defer cancel()
	export := operatorCommand(slow, c, "export", "--new", "--quiet", "alpha:disks/slow.img", "-")
	reader := exec.CommandContext(slow, "sh", "-c", "while dd bs=1M count=1 iflag=fullblock of=/dev/null status=none; do sleep 1; done")
	pipe, err := export.StdoutPipe()
	if err != nil {
		return "", err
	}
	reader.Stdin = pipe
	if err := errors.Join(export.Start(), reader.Start()); err != nil {
		return "", err
	}
	_, _ = export.Wait(), reader.Wait() // both are ended by the time
	return fmt.Sprintf("for %v", peakTime/4), nil
}
