package transfer_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestTreeHostileSource is the list of bad input for trees: whatever the source
// says, nothing is visible at the target, and nothing outside of it is touched.
func TestTreeHostileSource(t *testing.T) {
	entry := func(path, typ, more string) string {
		return fmt.Sprintf(`"kind":"entry","path":%q,"type":%q,%s%s`, path, typ, attrsOf(0o644), more)
	}
	empty := fmt.Sprintf(`,"size":0,"at":0,"digest":%q`, sum(nil))
	one := func(line string) *script { return &script{lines: []string{line}} }
	twin := func(build func(s *script)) *script { s := &script{}; build(s); return s }
	keep := transfer.TreePolicy{Owner: transfer.OwnerKeep, Xattrs: "all", Special: transfer.SpecialKeep, SetID: transfer.SetIDKeep}
	refuse := transfer.TreePolicy{Special: transfer.SpecialRefuse}
	unsafe, manifest := api.UnsafeEntry, api.BadManifest
	for _, c := range []struct {
		name   string
		src    *script
		policy transfer.TreePolicy
		code   *api.Code
		says   string
	}{
		{"E67 up", one(entry("../x", "file", empty)), keep, unsafe, `unsafe entry "../x": `},
		{"E67 absolute", one(entry("/x", "file", empty)), keep, unsafe, `unsafe entry "/x": `},
		{"E67 up within", one(entry("a/../../x", "file", empty)), keep, unsafe, `unsafe entry "a/../../x": `},
		{"E67 two slashes", one(entry("//x", "file", empty)), keep, unsafe, `unsafe entry "//x": `},
		{"E67 stages", one(entry(".gantry/x", "file", empty)), keep, unsafe, "gantry itself"},
		{"E68 file through a symlink", twin(func(s *script) { s.symlink("l", "/tmp"); s.file("l/x", "x") }), keep, unsafe, `unsafe entry "l/x": `},
		{"E70 hardlink to outside", one(`"kind":"entry","path":"x","type":"link","target":"../../etc/passwd"`), keep, unsafe, "its target"},
		{"E70 hardlink to outside, absolute", one(`"kind":"entry","path":"x","type":"link","target":"/etc/passwd"`), keep, unsafe, "its target"},
		{"E70 hardlink to a later entry", one(`"kind":"entry","path":"x","type":"link","target":"y"`), keep, unsafe, "does not come before"},
		{"E70 hardlink to nothing", twin(func(s *script) { s.file("b", "b"); s.link("x", "a") }), keep, unsafe, "no file of the tree"},
		{"E70 hardlink to a symlink", twin(func(s *script) { s.symlink("a", "/etc/passwd"); s.link("x", "a") }), keep, unsafe, "no file"},
		{"E70 hardlink to a directory", twin(func(s *script) { s.dir("a", 0o755); s.link("x", "a") }), keep, unsafe, "no file"},
		{"E70 hardlink through a symlink", twin(func(s *script) { s.symlink("a", "/etc"); s.link("x", "a/passwd") }), keep, unsafe, "no file of the tree"},
		{"E71 same name, link then file", twin(func(s *script) { s.symlink("x", "/etc/passwd"); s.file("x", "x") }), keep, unsafe, `unsafe entry "x": `},
		{"E72 trailing slash", twin(func(s *script) { s.symlink("x", "/tmp"); s.file("x/", "x") }), keep, unsafe, `unsafe entry "x/": `},
		{"E73 device", twin(func(s *script) { s.special("sda", "block", 2049) }), refuse, unsafe, "it is a block"},
		{"E73 fifo", twin(func(s *script) { s.special("f", "fifo", 0) }), refuse, unsafe, "it is a fifo"},
		{"E73 socket", twin(func(s *script) { s.special("s", "socket", 0) }), refuse, unsafe, "it is a socket"},
		{"E75 uid that means nobody", one(strings.Replace(entry("x", "file", empty), `"uid":0`, `"uid":4294967295`, 1)), keep, unsafe, "owner"},
		{"E76 name of 4,097 bytes", one(entry(strings.Repeat("a/", 2048)+"x", "file", empty)), keep, unsafe, "longer than"},
		{"E76 component of 256 bytes", one(entry(strings.Repeat("a", 256), "file", empty)), keep, unsafe, "part longer"},
		{"E76 NUL", one(strings.Replace(entry("x0y", "file", empty), "x0y", `x\u0000y`, 1)), keep, unsafe, "control"},
		{"E76 newline", one(entry("x\ny", "file", empty)), keep, unsafe, `unsafe entry "x\ny": `},
		{"E76 invalid UTF-8", one(strings.Replace(entry("x0y", "file", empty), "x0y", "x\xffy", 1)), keep, manifest, ""},
		{"E78 negative size", one(entry("x", "file", fmt.Sprintf(`,"size":-1,"at":0,"digest":%q`, sum(nil)))), keep, unsafe, "bytes"},
		{"E78 8 EiB", one(entry("x", "file", `,"size":9223372036854775807,"at":0`)), keep, unsafe, "bytes"},
		{"E79 a map of millions", twin(func(s *script) {
			s.add(entry("x", "file", fmt.Sprintf(`,"size":%d,"at":0`, 3*piece)))
			s.add(`"kind":"zero","count":9000000`)
		}), keep, manifest, "pieces"},
		{"E84 wrong digest at the last byte", twin(func(s *script) {
			s.file("a", "alpha")
			s.tamper = lastBit(5)
			s.rehash = func(l string) string { return l }
		}), keep, api.CorruptPiece, "other bytes"},
		{"E84 wrong digest of a large file", twin(func(s *script) {
			s.bigFile("a", content(1, piece+1))
			k := len(s.lines) - 1
			s.lines[k] = fmt.Sprintf(`"kind":"digest","digest":%q`, sum(nil))
		}), keep, manifest, "digest"},
		{"E84 wrong digest of the tree", twin(func(s *script) {
			s.file("a", "alpha")
			s.end = fmt.Sprintf(`{"kind":"end","digest":%q,"size":5,"entries":1,"skipped":0}`, sum(nil))
		}), keep, manifest, "digest"},
		{"E85 content shorter than the manifest", twin(func(s *script) { s.file("a", "alpha"); s.short = true }), keep, api.PeerLost, ""},
		{"E86 two manifests", twin(func(s *script) {
			s.file("a", "alpha")
			s.end = fmt.Sprintf(`{"kind":"end","digest":%q,"size":5,"entries":1,"skipped":0}`+"\n"+`{"kind":"tree"}`, s.digest())
		}), keep, manifest, "after the last line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTree(t)
			g.policy = c.policy
			_, err := g.imp(c.src).Run(context.Background())
			requireCode(t, c.code, err)
			require.ErrorContains(t, err, c.says)
			g.nothing(t)
			require.NoError(t, g.imp(c.src).Discard())
		})
	}
}

func lastBit(size int64) func(int64, []byte) {
	return func(off int64, b []byte) {
		if off+int64(len(b)) == size {
			b[len(b)-1] ^= 1
		}
	}
}

// TestTreeHarmlessSource: what looks dangerous and is data.
func TestTreeHarmlessSource(t *testing.T) {
	t.Run("E68 symlink out is data", func(t *testing.T) {
		g, s := newTree(t), &script{}
		s.symlink("l", "../../../../etc")
		_, err := g.imp(s).Run(context.Background())
		require.NoError(t, err)
		target, err := os.Readlink(g.at("l"))
		require.NoError(t, err)
		require.Equal(t, "../../../../etc", target)
	})
	t.Run("E69 the target is a symlink", func(t *testing.T) {
		g, other := newTree(t), t.TempDir()
		require.NoError(t, os.Symlink(other, g.at()))
		for _, mode := range []string{api.ModeCreate, api.ModeReplace, api.ModeUpdate} {
			m := g.imp(honest())
			m.Mode = mode
			_, err := m.Run(context.Background())
			requireCode(t, api.Exists, err)
		}
		left, err := os.ReadDir(other)
		require.NoError(t, err)
		require.Empty(t, left)
	})
	t.Run("E73 special files are skipped", func(t *testing.T) {
		g, s, n := newTree(t), &script{}, &notes{}
		s.special("c", "char", 259)
		s.special("f", "fifo", 0)
		m := g.imp(s)
		m.Report = n
		res, err := m.Run(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, 2, res.Entries.Special)
		require.Len(t, shape(t, g.at()), 1)
	})
	t.Run("E74 setuid, capabilities and ACLs", func(t *testing.T) {
		s := &script{}
		cap := "AQAAAgAgAAAAAAAAAAAAAAAAAAA="
		s.add(fmt.Sprintf(`"kind":"entry","path":"x","type":"file",%s,"size":0,"at":0,"digest":%q,"xattrs":{"security.capability":%q,"user.a":"YQ=="}`, attrsOf(0o6755), sum(nil), cap))
		v, _ := transfer.ParseDigest(sum(nil))
		s.entries = append(s.entries, transfer.TreeEntry{Path: "x", Type: transfer.TreeFile, Digest: v, TreeAttrs: transfer.TreeAttrs{Mode: 0o6755}})
		for _, c := range []struct {
			policy    transfer.TreePolicy
			mode      uint32
			user, cap bool
		}{
			{transfer.TreePolicy{}, 0o755, false, false},
			{transfer.TreePolicy{Xattrs: "user"}, 0o755, true, false},
			{transfer.TreePolicy{Xattrs: "all"}, 0o755, true, false},
			{transfer.TreePolicy{Xattrs: "all", SetID: transfer.SetIDKeep}, 0o6755, true, true},
		} {
			g := newTree(t)
			g.policy = c.policy
			_, err := g.imp(s).Run(context.Background())
			require.NoError(t, err)
			var st unix.Stat_t
			require.NoError(t, unix.Lstat(g.at("x"), &st))
			require.Equal(t, c.mode, st.Mode&0o7777)
			_, err = unix.Lgetxattr(g.at("x"), "user.a", make([]byte, 10))
			require.Equal(t, c.user, err == nil, "%+v %v", c, err)
			if os.Geteuid() == 0 {
				_, err = unix.Lgetxattr(g.at("x"), "security.capability", make([]byte, 100))
				require.Equal(t, c.cap, err == nil, "%+v %v", c, err)
			}
		}
	})
	t.Run("E77 twins are kept apart", func(t *testing.T) {
		g, s := newTree(t), &script{}
		for _, name := range []string{"A", "a", "e\u0301", "\u00e9"} {
			s.file(name, "of "+name)
		}
		_, err := g.imp(s).Run(context.Background())
		require.NoError(t, err)
		for _, name := range []string{"A", "a", "e\u0301", "\u00e9"} {
			b, err := os.ReadFile(g.at(name))
			require.NoError(t, err)
			require.Equal(t, "of "+name, string(b))
		}
	})
	t.Run("E83 E85 endless content is not read", func(t *testing.T) {
		g, s := newTree(t), honest()
		s.endless = true
		_, err := g.imp(s).Run(context.Background())
		require.NoError(t, err)
	})
	t.Run("E80 a bomb of zeros takes no room", func(t *testing.T) {
		g, s := newTree(t), &script{}
		s.bigFile("zeros", make([]byte, 16*piece))
		_, err := g.imp(s).Run(context.Background())
		require.NoError(t, err)
		require.Less(t, allocated(t, g.at("zeros")), int64(1<<20))
	})
	for _, name := range []string{"E87 qcow2 with a backing file", "E88 raw image that begins like qcow2", "E90 dump with a command"} {
		t.Run(name, contentIsData)
	}
}

// contentIsData: nobody looks at what a file holds.
func contentIsData(t *testing.T) {
	g, s := newTree(t), &script{}
	s.file("disk", "QFI\xfb\x00\x00\x00\x03backing")
	s.file("dump.sql", "\\! touch /tmp/x\n")
	_, err := g.imp(s).Run(context.Background())
	require.NoError(t, err)
	b, err := os.ReadFile(g.at("disk"))
	require.NoError(t, err)
	require.Equal(t, "QFI\xfb\x00\x00\x00\x03backing", string(b))
}

// TestTreeSwapped is "E91 directory swapped for a link during extraction": a
// directory of the stage that became a link is not followed.
func TestTreeSwapped(t *testing.T) {
	for _, name := range []string{"E91 held", "E91 looked up again"} {
		t.Run(name, func(t *testing.T) {
			g, s, other := newTree(t), &script{}, t.TempDir()
			s.dir("d", 0o755)
			s.file("d/x", "x")
			m := g.imp(s)
			stage := filepath.Join(g.dir, transfer.StageDir, "task.stage", "new")
			swap := func() error {
				if err := os.Rename(filepath.Join(stage, "d"), filepath.Join(stage, "z")); err != nil {
					return err
				}
				return os.Symlink(other, filepath.Join(stage, "d"))
			}
			if name == "E91 held" {
				m.Faults(func(op string) error {
					if op == "write" {
						return swap()
					}
					return nil
				})
			} else {
				s.tamper = func(int64, []byte) { require.NoError(t, swap()) }
			}
			m.Verify = transfer.VerifyDisk
			_, err := m.Run(context.Background())
			if name != "E91 held" {
				requireCode(t, api.UnsafeEntry, err)
			}
			left, err := os.ReadDir(other)
			require.NoError(t, err)
			require.Empty(t, left, "written through a link")
		})
	}
}
