package transfer_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// having is exported, and says what was asked and answered.
type having struct {
	exported
	asked, lines int    // requests with a digest, and without
	heard        string // what came for those with one
	twist        func(reply string) string
}

func (h *having) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	h.lines++
	return h.exported.Window(ctx, from, n, done)
}

func (h *having) WindowHaving(ctx context.Context, n int64, have string) (io.ReadCloser, error) {
	h.asked++
	var b bytes.Buffer
	err := h.x.WindowHaving(ctx, 0, n, have, &b)
	h.heard = b.String()
	if h.twist != nil {
		h.heard = h.twist(h.heard)
	}
	return io.NopCloser(strings.NewReader(h.heard)), err
}

func (h *having) same() bool { return strings.Contains(h.heard, `"kind":"same"`) && h.lines == 0 }

// standing is a source and a target of it.
type standing struct {
	t     *testing.T
	src   string
	g     treeTarget
	known string
	twist func(string) string
}

func newStanding(t *testing.T) *standing {
	transfer.RacyTime(t, -1) // nothing is too new
	s := &standing{t: t, src: t.TempDir(), g: newTree(t), known: filepath.Join(t.TempDir(), "known")}
	shell(t, s.src, `mkdir -p d/deep/er e; echo a > a; ln a d/link; ln -s nowhere d/s; for i in $(seq 40); do echo $i > d/f$i; done; echo x > d/deep/er/x; : > e/empty
		head -c 9000000 /dev/urandom > large; echo z > d.z; chmod 600 e/empty; chmod 750 d/deep`)
	return s
}

// again imports once more, with an export of its own, and requires that the target is then as the source is.
func (s *standing) again(change func(*transfer.Import), o transfer.TreeOptions) (*having, api.ImportResult) {
	s.t.Helper()
	o.Known = s.known
	x := tree(s.t, s.src, s.t.TempDir(), o)
	h := &having{exported: exported{x}, twist: s.twist}
	m := s.g.imp(h)
	m.Mode, m.Dir, m.Tree.Extraneous = api.ModeReplace, s.t.TempDir(), api.ExtraneousDelete
	if change != nil {
		change(m)
	}
	res, err := m.Run(s.t.Context())
	require.NoError(s.t, err)
	require.NoError(s.t, m.Clean(s.t.Context()))
	require.NoError(s.t, m.Discard())
	if d := x.Digest(); d != "" {
		require.Equal(s.t, d, res.Digest)
	}
	require.NoError(s.t, x.Close())
	if !m.DryRun && m.Tree.Policy == (transfer.TreePolicy{}) && len(o.Filter) == 0 {
		want := shape(s.t, s.src)
		if got := shape(s.t, s.g.at()); !m.Checksum {
			require.Equal(s.t, want, got)
		}
	}
	return h, res
}

// settle imports until nothing is to be done and both sides know it.
func (s *standing) settle() {
	s.t.Helper()
	s.again(nil, transfer.TreeOptions{})
	s.again(nil, transfer.TreeOptions{})
	h, res := s.again(nil, transfer.TreeOptions{})
	require.True(s.t, h.same(), "asked %d times with what is here, %d times for lines, got %s", h.asked, h.lines, h.heard)
	require.Equal(s.t, api.TargetThere, res.Target)
}

func TestTreeStands(t *testing.T) {
	s := newStanding(t)
	h, first := s.again(nil, transfer.TreeOptions{})
	require.Zero(t, h.asked)
	_, told := s.again(nil, transfer.TreeOptions{})
	h, res := s.again(nil, transfer.TreeOptions{})
	require.True(t, h.same(), h.heard)
	require.Equal(t, first.Digest, res.Digest)
	require.Equal(t, told.Entries, res.Entries, "with lines and without the result is the same")
	require.Equal(t, told.Bytes, res.Bytes)
	require.Equal(t, told.Size, res.Size)
	require.Equal(t, api.TargetThere, res.Target)
	require.EqualValues(t, 45, res.Entries.Files)
	require.EqualValues(t, 1, res.Entries.Links)
	require.EqualValues(t, 1, res.Entries.Symlinks)
	require.EqualValues(t, 4, res.Entries.Dirs)
	require.Equal(t, res.Entries.Files+res.Entries.Links+res.Entries.Symlinks+res.Entries.Dirs, res.Entries.Unchanged)
	require.Equal(t, 3, strings.Count(h.heard, "\n"), "three lines in all: %s", h.heard)

	// Other modes say so as well; what was expected is compared.
	h, res = s.again(func(m *transfer.Import) { m.DryRun = true }, transfer.TreeOptions{})
	require.True(t, h.same())
	require.Equal(t, api.TargetThere, res.Target)
	h, _ = s.again(func(m *transfer.Import) { m.Mode, m.Tree.Extraneous = api.ModeCreate, "" }, transfer.TreeOptions{})
	require.True(t, h.same())
	h, _ = s.again(func(m *transfer.Import) { m.Expect = res.Digest }, transfer.TreeOptions{})
	require.True(t, h.same())
	x := tree(t, s.src, t.TempDir(), transfer.TreeOptions{Known: s.known})
	m := s.g.imp(&having{exported: exported{x}})
	m.Mode, m.Expect = api.ModeReplace, "b3:"+strings.Repeat("0", 64)
	_, err := m.Run(t.Context())
	requireCode(t, api.DigestMismatch, err)

	// Who wants everything read, or has other rules, gets the lines.
	h, _ = s.again(func(m *transfer.Import) { m.Checksum = true }, transfer.TreeOptions{})
	require.Zero(t, h.asked)
	h, _ = s.again(nil, transfer.TreeOptions{Checksum: true})
	require.False(t, h.same())
	h, _ = s.again(nil, transfer.TreeOptions{Xattrs: transfer.XattrsUser})
	require.False(t, h.same())
	h, _ = s.again(func(m *transfer.Import) { m.DryRun = true }, transfer.TreeOptions{Filter: []string{"- d.z"}})
	require.False(t, h.same())
	h, _ = s.again(func(m *transfer.Import) { m.Tree.Policy.SetID = transfer.SetIDKeep }, transfer.TreeOptions{})
	require.Zero(t, h.asked)
}

// TestTreeStandsChanged: whatever is done to either side, the next import sees it, and the target is the source's again.
func TestTreeStandsChanged(t *testing.T) {
	for name, change := range map[string]string{
		"content, same size and times": `touch -r d/f7 ../keep; printf Q | dd of=d/f7 conv=notrunc status=none; touch -r ../keep d/f7`,
		"large, same size and times":   `touch -r large ../keep; printf Q | dd of=large conv=notrunc seek=5000000 bs=1 status=none; touch -r ../keep large`,
		"another file in its place":    `cp -p d/f7 ../keep; mv ../keep d/f7; touch d/deep/er/x`,
		"gone":                         `rm d/f40`,
		"last gone":                    `rm large`,
		"more":                         `echo more > d/deep/er/y`,
		"more in an empty place":       `mkdir e/more`,
		"mode":                         `chmod 640 d/f3`,
		"mode of a directory":          `chmod 700 d/deep`,
		"time":                         `touch -d 2001-02-03 d/f3`,
		"symlink":                      `ln -sfn elsewhere d/s`,
		"another name":                 `mv d/f5 d/g5`,
		"directory for file":           `rm d/f9; mkdir d/f9`,
		"the top's mode":               `chmod 711 .`,
		"link apart":                   `cp -p a b; mv b a`,
		"directory moved":              `mv d/deep/er e/er`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStanding(t)
			s.settle()
			shell(t, s.g.at(), change)
			h, _ := s.again(nil, transfer.TreeOptions{})
			require.NotZero(t, h.lines, "the target changed")
			s.settle()
			shell(t, s.src, change)
			h, _ = s.again(nil, transfer.TreeOptions{})
			require.NotZero(t, h.lines, "the source changed")
			s.settle()
		})
	}
}

// TestTreeStandsDamaged: an index that a crash or a disk damaged is none, or the one that was written.
func TestTreeStandsDamaged(t *testing.T) {
	s := newStanding(t)
	s.settle()
	for _, path := range []string{s.known + ".index", s.g.task + ".known.index"} {
		good, err := os.ReadFile(path)
		require.NoError(t, err)
		for at := 3; at < len(good); at += len(good)/9 + 1 {
			bad := bytes.Clone(good)
			if bad[at] ^= 1; at%2 == 0 {
				bad = bad[:at]
			}
			if at > 1000 && at < 1023 {
				continue // spaces
			}
			require.NoError(t, os.WriteFile(path, bad, 0o600))
			h, res := s.again(nil, transfer.TreeOptions{})
			require.NotZero(t, h.lines, "%s at %d", path, at)
			require.Equal(t, api.TargetThere, res.Target)
		}
		s.settle()
	}
}

// TestTreeStandsLie: a source that says other things than the index is asked for lines.
func TestTreeStandsLie(t *testing.T) {
	s := newStanding(t)
	s.settle()
	for name, twist := range map[string]func(string) string{
		"cut":        func(r string) string { return r[:len(r)-9] },
		"other size": func(r string) string { return strings.Replace(r, `"end","size":`, `"end","size":1`, 1) },
		"skipped":    func(r string) string { return strings.Replace(r, `"skipped":0`, `"skipped":1`, 1) },
		"other lines": func(r string) string {
			return strings.Replace(r, `"same","digest":"b3:`, `"same","digest":"b3:`+strings.Repeat("0", 64)+`","x":"`, 1)
		},
		"more behind": func(r string) string { return r + "{}\n" },
		"no end":      func(r string) string { return r[:strings.Index(r, `{"kind":"end"`)] },
	} {
		s.twist = twist
		h, res := s.again(nil, transfer.TreeOptions{})
		require.NotZero(t, h.asked, name)
		require.NotZero(t, h.lines, name)
		require.Equal(t, api.TargetThere, res.Target, name)
	}
	// Nobody has to hear it who did not ask.
	h := &having{exported: exported{tree(t, s.src, t.TempDir(), transfer.TreeOptions{Known: s.known})}}
	reply := h.twisted(t, s)
	_, err := transfer.ReadTreeWindow(strings.NewReader(reply), new(transfer.TreeCursor), 64, func(transfer.TreeHeader, transfer.TreeLine) error { return nil })
	requireCode(t, api.BadManifest, err)
}

// twisted is the reply to an import that has everything.
func (h *having) twisted(t *testing.T, s *standing) string {
	s.twist = nil
	got, _ := s.again(nil, transfer.TreeOptions{})
	require.True(t, got.same())
	return got.heard
}

// TestTreeStandsRestart: a restarted export knows that its reader has the tree, until lines are asked for.
func TestTreeStandsRestart(t *testing.T) {
	s := newStanding(t)
	s.settle()
	head := s.head()
	work, o := t.TempDir(), transfer.TreeOptions{Known: s.known}
	x := tree(t, s.src, work, o)
	require.EqualValues(t, -1, x.Size())
	var b strings.Builder
	require.NoError(t, x.WindowHaving(t.Context(), 0, 64, head, &b))
	require.Contains(t, b.String(), `"kind":"same"`)
	digest, size := x.Digest(), x.Size()
	require.NoError(t, x.Close())

	x = tree(t, s.src, work, o)
	require.Equal(t, digest, x.Digest())
	require.Equal(t, size, x.Size())
	b.Reset()
	require.NoError(t, x.WindowHaving(t.Context(), 0, 64, "b3:other", &b))
	require.NotContains(t, b.String(), `"kind":"same"`)
	_, w := manifest(t, x, new(transfer.TreeCursor), 1000)
	require.Equal(t, digest, w.Digest)
	require.Equal(t, size, x.Size())
}

// head is the digest of the lines that the target has.
func (s *standing) head() string {
	data, err := os.ReadFile(s.known + ".index")
	require.NoError(s.t, err)
	_, rest, _ := strings.Cut(string(data), `"lines":"`)
	return rest[:67]
}

// What is called verified on disk was read from it, also when nothing had to be
// done.
func TestTreeVerifiedUnchanged(t *testing.T) {
	s := newStanding(t)
	s.settle()
	run := func(change func(*transfer.Import)) error {
		x := tree(t, s.src, t.TempDir(), transfer.TreeOptions{Known: s.known})
		defer x.Close()
		m := s.g.imp(&having{exported: exported{x}})
		m.Mode, m.Verify = api.ModeReplace, transfer.VerifyDisk
		m.Faults(func(op string) error {
			if op == "read" {
				return syscall.EIO
			}
			return nil
		})
		change(m)
		_, err := m.Run(t.Context())
		return err
	}
	requireCode(t, api.IO, run(func(*transfer.Import) {}))
	requireCode(t, api.IO, run(func(m *transfer.Import) { m.Mode = api.ModeCreate }))
	require.NoError(t, run(func(m *transfer.Import) { m.Verify = transfer.VerifyWire }), "nothing is read")
	require.NoError(t, run(func(m *transfer.Import) { m.DryRun = true }), "nothing is called verified")
	_, res := s.again(func(m *transfer.Import) { m.Verify = transfer.VerifyDisk }, transfer.TreeOptions{})
	require.Equal(t, api.TargetThere, res.Target)
	require.Equal(t, transfer.VerifyDisk, res.Verified)
}
