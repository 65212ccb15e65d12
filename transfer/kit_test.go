package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const piece = transfer.PieceSize

// content makes size bytes that no two seeds share.
func content(seed uint64, size int) []byte {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	b := make([]byte, size)
	rand.NewChaCha8(key).Read(b)
	return b
}

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// export opens an export of data in a folder of its own.
func export(t testing.TB, data []byte) *transfer.Export {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "src"), data, 0o644))
	return exportFile(t, dir, "src")
}

func exportFile(t testing.TB, dir, name string) *transfer.Export {
	t.Helper()
	x, err := transfer.OpenExport(openRoot(t, dir), name, t.TempDir(), transfer.Silent{})
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	return x
}

// direct is a Source that calls an Export, through a pipe as over a network.
type direct struct{ x *transfer.Export }

func (d direct) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return d.x.Window(ctx, from, n, done, w) }), nil
}

func (d direct) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	return d.x.Content(ctx, off, length)
}

func (d direct) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return d.x.Rehash(ctx, n, w) }), nil
}

func (d direct) Sub(ctx context.Context, pieces []int64) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return d.x.Sub(ctx, pieces, w) }), nil
}

func (d direct) Frames(ctx context.Context, ranges []transfer.Range, compress bool) (io.ReadCloser, error) {
	return pipe(func(w io.Writer) error { return transfer.WriteFrames(ctx, d.x, ranges, compress, w) }), nil
}

// pipe ends properly, whatever write returns: as fronts do.
func pipe(write func(io.Writer) error) io.ReadCloser {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(pw)
		pw.Close()
	}()
	return &pipeReader{pr, done}
}

type pipeReader struct {
	*io.PipeReader
	done chan struct{}
}

func (p *pipeReader) Close() error {
	err := p.PipeReader.Close()
	<-p.done
	return err
}

// target is a resource and a task that imports into it.
type target struct {
	root      *os.Root
	dir, task string
}

func newTarget(t testing.TB) target {
	return targetIn(t, t.TempDir())
}

func targetIn(t testing.TB, dir string) target {
	return target{openRoot(t, dir), dir, t.TempDir()}
}

// run imports from src under the name "disk".
func (g target) imp(src transfer.Source) *transfer.Import {
	return (&transfer.Import{Source: src, Root: g.root, Name: "disk", Task: "task", Dir: g.task}).Fast()
}

func (g target) path() string { return filepath.Join(g.dir, "disk") }

// stage returns the content of the stage, nil when there is none.
func (g target) stage(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.dir, transfer.StageDir, "task.stage"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	return b
}

// holds says whether the target is there with data.
func (g target) holds(t testing.TB, data []byte) {
	t.Helper()
	got, err := os.ReadFile(g.path())
	require.NoError(t, err)
	require.True(t, bytes.Equal(got, data), "the target differs from what it ought to be")
}

func code(err error) string {
	if e, ok := errors.AsType[*feedback.Error](err); ok {
		return e.Code
	}
	return fmt.Sprintf("no code: %v", err)
}

func requireCode(t testing.TB, c *api.Code, err error) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, c.Name, code(err), "%v", err)
	var wire *feedback.Error
	require.ErrorAs(t, err, &wire)
	require.NotContains(t, wire.Message, "%!", "a format went wrong")
}

// b3sum is the independent opinion.
func b3sum(t testing.TB, path string) string {
	t.Helper()
	program, err := exec.LookPath("b3sum")
	if err != nil {
		t.Skip("needs b3sum")
	}
	out, err := exec.Command(program, "--no-names", "--no-mmap", path).Output()
	require.NoError(t, err)
	return "b3:" + strings.TrimSpace(string(out))
}

// allocated is what a file takes on disk.
func allocated(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	return st.Blocks * 512
}

// notes is a Reporter that keeps what it is told.
type notes struct {
	mu     sync.Mutex
	logs   []string
	states []api.Publishing
	fail   error
	total  int64
	done   int64
}

func (n *notes) State(name string, detail any) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return n.fail
	}
	n.states = append(n.states, detail.(api.Publishing))
	return nil
}

func (n *notes) Log(level, item, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.logs = append(n.logs, level+" "+text)
}

func (n *notes) Progress(item, phase, unit string, total int64) transfer.Counter { return n }

func (n *notes) Add(k int64)      { n.mu.Lock(); n.done += k; n.mu.Unlock() }
func (n *notes) SetTotal(k int64) { n.mu.Lock(); n.total = k; n.mu.Unlock() }
func (n *notes) SetPhase(string)  {}

func (n *notes) Came(int64)            {}
func (n *notes) Proved(int64)          {}
func (n *notes) Durable(int64)         {}
func (n *notes) Estimate(int64)        {}
func (n *notes) Explain(func() string) {}
func (n *notes) End()                  {}

// faultAt is a hook for Faults that fails the nth operation op; seen is how many
// there were.
func faultAt(op string, n int, err error) (hook func(op string) error, seen func() int) {
	var count atomic.Int64
	hook = func(o string) error {
		if o == op && int(count.Add(1)) == n {
			return err
		}
		return nil
	}
	return hook, func() int { return int(count.Load()) }
}
