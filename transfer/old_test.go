package transfer_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var olds = flag.Int("transfer.olds", 25, "random old copies to import over")

// replace imports src over old and checks that the counters add up.
func replaceOld(t testing.TB, g target, src transfer.Source, mode string) api.ImportResult {
	t.Helper()
	im := g.imp(src)
	im.Mode = mode
	res, err := im.Run(context.Background())
	require.NoError(t, err)
	b := res.Bytes
	require.Equal(t, res.Size, b.Fetched+b.Copied+b.Reflinked+b.Hole+b.Carried, "%+v", b)
	return res
}

// draw makes a file of random pieces, some of them zero.
func draw(r *rand.Rand) []byte {
	data := content(r.Uint64(), int(r.Int64N(5*piece)))
	for range r.IntN(4) {
		if len(data) > 0 {
			at := r.IntN(len(data))
			clear(data[at:min(len(data), at+r.IntN(2*piece))])
		}
	}
	return data
}

// edit is an older state of data: other bytes here and there, another length.
func edit(r *rand.Rand, data []byte) []byte {
	old := append([]byte(nil), data...)
	for range r.IntN(20) {
		if len(old) == 0 {
			break
		}
		at := r.IntN(len(old))
		copy(old[at:], content(r.Uint64(), 1+r.IntN(8192)))
	}
	switch r.IntN(5) {
	case 0:
		old = old[:r.IntN(len(old)+1)]
	case 1:
		old = append(old, content(r.Uint64(), r.IntN(piece))...)
	case 2:
		old = draw(r)
	}
	return old
}

// sparse writes data with holes where it is zero.
func sparse(t testing.TB, path string, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(int64(len(data))))
	for at := 0; at < len(data); at += 4096 {
		block := data[at:min(at+4096, len(data))]
		if string(block) != string(make([]byte, len(block))) {
			_, err := f.WriteAt(block, int64(at))
			require.NoError(t, err)
		}
	}
}

// TestOldCopies: whatever the old copy is, the target is the source, as b3sum
// says, and the bytes by origin add up.
func TestOldCopies(t *testing.T) {
	for i := range *olds {
		s := *seed + uint64(i)
		r := rand.New(rand.NewPCG(s, 2))
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			data := draw(r)
			g := newTarget(t)
			sparse(t, g.path(), edit(r, data))
			dir := t.TempDir()
			sparse(t, filepath.Join(dir, "src"), data)
			mode := []string{api.ModeReplace, api.ModeUpdate}[r.IntN(2)]
			res := replaceOld(t, g, direct{exportFile(t, dir, "src")}, mode)
			g.holds(t, data)
			require.Equal(t, b3sum(t, g.path()), res.Digest)
		})
	}
}

// TestOldCopyScattered: small writes cost their parts, not their pieces.
func TestOldCopyScattered(t *testing.T) {
	old := content(1, 32*piece)
	data := append([]byte(nil), old...)
	r := rand.New(rand.NewPCG(1, 3))
	for range len(data) / 4096 / 1000 {
		copy(data[r.IntN(len(data)/4096)*4096:], content(r.Uint64(), 4096))
	}
	g := newTarget(t)
	require.NoError(t, os.WriteFile(g.path(), old, 0o600))
	res := replaceOld(t, g, direct{export(t, data)}, api.ModeReplace)
	g.holds(t, data)
	require.Less(t, res.Wire*100, res.Size*4, "%d bytes of %d", res.Wire, res.Size)
	require.Less(t, res.Bytes.Fetched, res.Wire)

	// And a hundredth of the pieces: less than 2 %.
	data[5*piece+7] ^= 1
	res = replaceOld(t, targetIn(t, g.dir), direct{export(t, data)}, api.ModeUpdate)
	g.holds(t, data)
	require.Less(t, res.Wire*100, res.Size*2)
	require.EqualValues(t, transfer.PartSize, res.Bytes.Fetched)
}

// TestUpdate: it makes a target that is not there, and replaces one that is.
func TestUpdate(t *testing.T) {
	data := content(1, piece+1)
	g := newTarget(t)
	require.Equal(t, api.TargetCreated, replaceOld(t, g, direct{export(t, data)}, api.ModeUpdate).Target)
	g.holds(t, data)
	data[0]++
	require.Equal(t, api.TargetReplaced, replaceOld(t, targetIn(t, g.dir), direct{export(t, data)}, api.ModeUpdate).Target)
	g.holds(t, data)
}

// partSource is a source whose replies to Sub and Frames are tampered with.
type partSource struct {
	transfer.Source
	sub    func(rc io.ReadCloser, pieces []int64) (io.ReadCloser, error)
	frames func(rc io.ReadCloser) io.ReadCloser

	contents, subs, frameRequests atomic.Int64
}

func (p *partSource) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	p.contents.Add(1)
	return p.Source.Content(ctx, off, length)
}

func (p *partSource) Sub(ctx context.Context, pieces []int64) (io.ReadCloser, error) {
	p.subs.Add(1)
	rc, err := p.Source.Sub(ctx, pieces)
	if err == nil && p.sub != nil {
		return p.sub(rc, pieces)
	}
	return rc, err
}

func (p *partSource) Frames(ctx context.Context, ranges []transfer.Range, compress bool) (io.ReadCloser, error) {
	p.frameRequests.Add(1)
	rc, err := p.Source.Frames(ctx, ranges, compress)
	if err == nil && p.frames != nil {
		rc = p.frames(rc)
	}
	return rc, err
}

// flipAfter changes the byte at pos of a reply.
func flipAfter(rc io.ReadCloser, pos int64) io.ReadCloser {
	return &tampered{rc: rc, f: &faulty{}, x: &fault{flip: func(b []byte, at int64) {
		if i := pos - at; i >= 0 && i < int64(len(b)) {
			b[i] ^= 1
		}
	}}}
}

// TestOldCopyHostileSource: a source that lies in values of parts or in frames
// gets its whole pieces proved, or the import says what is wrong; no byte that is
// not the file's reaches the disk.
func TestOldCopyHostileSource(t *testing.T) {
	old := content(1, 4*piece+100)
	data := append([]byte(nil), old...)
	for _, at := range []int{5, piece + 70000, 3*piece + 9} {
		data[at] ^= 1
	}
	lines := func(change func(string) string) func(io.ReadCloser, []int64) (io.ReadCloser, error) {
		return func(rc io.ReadCloser, _ []int64) (io.ReadCloser, error) { return rewrite(change)(0, 0, rc), nil }
	}
	once := func(change func(io.ReadCloser) io.ReadCloser) func(io.ReadCloser) io.ReadCloser {
		var done atomic.Bool
		return func(rc io.ReadCloser) io.ReadCloser {
			if done.Swap(true) {
				return rc
			}
			return change(rc)
		}
	}
	for name, c := range map[string]struct {
		src  *partSource
		code *api.Code // nil: done
	}{
		"honest": {src: &partSource{}},
		"a value of a part lied about": {src: &partSource{sub: lines(func(l string) string {
			if i := len(`{"kind":"parts","n":1,"values":"`); len(l) > 1000 {
				return l[:i] + "AAAA" + l[i+4:]
			}
			return l
		})}},
		"no parts": {src: &partSource{sub: func(rc io.ReadCloser, _ []int64) (io.ReadCloser, error) {
			rc.Close()
			return nil, api.BadRequest.Err("none")
		}}},
		"wrong bytes in a frame":   {src: &partSource{frames: once(func(rc io.ReadCloser) io.ReadCloser { return flipAfter(rc, 100) })}},
		"always wrong bytes":       {src: &partSource{frames: func(rc io.ReadCloser) io.ReadCloser { return flipAfter(rc, 100) }}},
		"a frame somewhere else":   {src: &partSource{frames: func(rc io.ReadCloser) io.ReadCloser { return flipAfter(rc, 9) }}, code: api.BadFrames},
		"a frame of another codec": {src: &partSource{frames: func(rc io.ReadCloser) io.ReadCloser { return flipAfter(rc, 24) }}, code: api.BadFrames},
		"frames cut": {src: &partSource{frames: once(func(rc io.ReadCloser) io.ReadCloser {
			return &tampered{rc: rc, f: &faulty{}, x: &fault{cut: 70000}}
		})}},
		"frames endless": {src: &partSource{frames: func(rc io.ReadCloser) io.ReadCloser {
			return &tampered{rc: rc, f: &faulty{}, x: &fault{endless: true}}
		}}},
		"values cut": {src: &partSource{sub: func() func(io.ReadCloser, []int64) (io.ReadCloser, error) {
			var n atomic.Int64
			return func(rc io.ReadCloser, _ []int64) (io.ReadCloser, error) {
				if n.Add(1) > 2 {
					return rc, nil
				}
				return &tampered{rc: rc, f: &faulty{}, x: &fault{cut: 1000}}, nil
			}
		}()}},
		"a piece's values twice": {src: &partSource{sub: lines(func(l string) string {
			if len(l) > 1000 {
				return l + l
			}
			return l
		})}, code: api.BadManifest},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTarget(t)
			require.NoError(t, os.WriteFile(g.path(), old, 0o600))
			c.src.Source = direct{export(t, data)}
			im := g.imp(c.src)
			im.Mode = api.ModeReplace
			_, err := im.Run(context.Background())
			soundStage(t, filepath.Join(g.dir, transfer.StageDir, "task.stage"), data)
			require.Positive(t, c.src.subs.Load())
			if c.code == nil {
				require.NoError(t, err)
				g.holds(t, data)
				return
			}
			requireCode(t, c.code, err)
			g.holds(t, old)
		})
	}
}

// TestOldCopyChanges: an old copy that is overwritten, cut short or extended in
// the middle of the import costs bytes, never the result.
func TestOldCopyChanges(t *testing.T) {
	old := content(1, 12*piece)
	data := append([]byte(nil), old...)
	for n := range 12 {
		data[n*piece+n] ^= 1
	}
	for name, change := range map[string]func(path string) error{
		"overwritten": func(path string) error { return os.WriteFile(path, content(9, 12*piece), 0o600) },
		"cut short":   func(path string) error { return os.Truncate(path, 3) },
		"removed":     os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			g := newTarget(t)
			require.NoError(t, os.WriteFile(g.path(), old, 0o600))
			src := &partSource{Source: direct{export(t, data)}}
			src.frames = func(rc io.ReadCloser) io.ReadCloser {
				if src.frameRequests.Load() == 1 {
					require.NoError(t, change(g.path()))
				}
				return rc
			}
			replaceOld(t, g, src, api.ModeReplace)
			g.holds(t, data)
		})
	}
}

// loop mounts a new file system of that kind on a loop device.
func loop(t testing.TB, kind string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a loop device")
	}
	program, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skip("needs mkfs." + kind)
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 400<<20))
	out, err := exec.Command(program, "-q", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel mounts no %s: %s", kind, out)
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return dir
}

// TestReflink: where the file system can, equal pieces are shared with the old
// copy, and count as such.
func TestReflink(t *testing.T) {
	for _, kind := range []string{"btrfs", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			g := targetIn(t, loop(t, kind))
			t.Cleanup(func() { g.root.Close() })
			old := content(1, 6*piece+777)
			require.NoError(t, os.WriteFile(g.path(), old, 0o600))
			data := append([]byte(nil), old...)
			data[2*piece+5] ^= 1
			res := replaceOld(t, g, direct{export(t, data)}, api.ModeReplace)
			g.holds(t, data)
			require.EqualValues(t, 5*piece+777, res.Bytes.Reflinked)
			require.EqualValues(t, transfer.PartSize, res.Bytes.Fetched)
		})
	}
}

// TestDryRun: it says what would be moved and changes nothing.
func TestDryRun(t *testing.T) {
	old := content(1, 4*piece)
	data := append([]byte(nil), old...)
	data[piece+5] ^= 1
	clear(data[2*piece : 3*piece])
	data = append(data, content(2, 100)...)
	g := newTarget(t)
	require.NoError(t, os.WriteFile(g.path(), old, 0o600))
	src := &partSource{Source: direct{export(t, data)}}
	im := g.imp(src)
	im.Mode, im.DryRun = api.ModeUpdate, true
	im.Commit = func() error { t.Error("a dry run commits"); return nil }
	res, err := im.Run(context.Background())
	require.NoError(t, err)
	require.True(t, res.DryRun)
	require.Equal(t, api.TargetReplaced, res.Target)
	require.Equal(t, api.Bytes{Fetched: transfer.PartSize + 100, Copied: 3*piece - transfer.PartSize, Hole: piece}, res.Bytes)
	require.Zero(t, src.contents.Load()+src.frameRequests.Load())
	g.holds(t, old)
	require.NoDirExists(t, filepath.Join(g.dir, transfer.StageDir))
	left, err := os.ReadDir(g.task)
	require.NoError(t, err)
	require.Empty(t, left)

	im.Mode = api.ModeCreate
	_, err = im.Run(context.Background())
	requireCode(t, api.Exists, err)
	im.Name = "other"
	res, err = im.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, api.TargetCreated, res.Target)
	require.NoFileExists(t, filepath.Join(g.dir, "other"))
}

// TestKeepOld: the old file stays, under its new name, with its content.
func TestKeepOld(t *testing.T) {
	old, data := content(1, 100), content(2, piece)
	g := newTarget(t)
	require.NoError(t, os.WriteFile(g.path(), old, 0o604))
	im := g.imp(direct{export(t, data)})
	im.Mode, im.KeepOld = api.ModeReplace, true
	res, err := im.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, "disk.old-task", res.Old)
	g.holds(t, data)
	got, err := os.ReadFile(g.path() + ".old-task")
	require.NoError(t, err)
	require.Equal(t, old, got)
	left, err := os.ReadDir(filepath.Join(g.dir, transfer.StageDir))
	require.NoError(t, err)
	require.Empty(t, left)

	// The name is taken now: refused before any byte moves.
	again := targetIn(t, g.dir).imp(direct{export(t, old)})
	again.Mode, again.KeepOld = api.ModeReplace, true
	_, err = again.Run(context.Background())
	requireCode(t, api.Exists, err)
	g.holds(t, data)

	// Without an old file there is nothing to keep.
	again.Name, again.Mode = "new", api.ModeUpdate
	res, err = again.Run(context.Background())
	require.NoError(t, err)
	require.Empty(t, res.Old)
	require.Equal(t, api.TargetCreated, res.Target)

	again.Mode = api.ModeCreate
	_, err = again.Run(context.Background())
	requireCode(t, api.BadRequest, err)
}
