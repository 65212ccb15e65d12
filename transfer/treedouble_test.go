package transfer_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"lukechampine.com/blake3"
)

// script is a Source that says whatever lines it is given: the double of a
// source, honest or not. Lines are without their number; content is what it
// claims to be.
type script struct {
	transfer.Source // nil: what is not asked of a tree
	header          string
	lines           []string // numbered ones
	end             string   // "" makes an honest one
	content         []byte
	entries         []transfer.TreeEntry // for the honest end
	skipped         int

	requests, wire atomic.Int64
	tamper         func(off int64, b []byte)
	rehash         func(line string) string // nil: refused
	short          bool                     // content ends early, properly
	endless        bool
}

const someTime = "2026-01-02T03:04:05.000000006Z"

func (s *script) add(line string) { s.lines = append(s.lines, line) }

func attrsOf(mode int) string {
	return fmt.Sprintf(`"mode":%d,"mtime":"%s","uid":0,"gid":0`, mode, someTime)
}

func (s *script) dir(path string, mode int) {
	s.add(fmt.Sprintf(`"kind":"entry","path":%q,"type":"dir",%s`, path, attrsOf(mode)))
	s.entries = append(s.entries, transfer.TreeEntry{Path: path, Type: transfer.TreeDir, TreeAttrs: transfer.TreeAttrs{Mode: uint32(mode)}})
}

func sum(b []byte) string { s := blake3.Sum256(b); return fmt.Sprintf("b3:%x", s[:]) }

func (s *script) file(path, content string) {
	d := sum([]byte(content))
	s.add(fmt.Sprintf(`"kind":"entry","path":%q,"type":"file",%s,"size":%d,"at":%d,"digest":%q`, path, attrsOf(0o644), len(content), len(s.content), d))
	v, _ := transfer.ParseDigest(d)
	s.entries = append(s.entries, transfer.TreeEntry{Path: path, Type: transfer.TreeFile, Size: int64(len(content)), Digest: v, TreeAttrs: transfer.TreeAttrs{Mode: 0o644}})
	s.content = append(s.content, content...)
}

func (s *script) symlink(path, target string) {
	s.add(fmt.Sprintf(`"kind":"entry","path":%q,"type":"symlink",%s,"target":%q`, path, attrsOf(0o777), target))
	s.entries = append(s.entries, transfer.TreeEntry{Path: path, Type: transfer.TreeSymlink, Target: target})
}

func (s *script) link(path, target string) {
	s.add(fmt.Sprintf(`"kind":"entry","path":%q,"type":"link","target":%q`, path, target))
	s.entries = append(s.entries, transfer.TreeEntry{Path: path, Type: transfer.TreeLink, Target: target})
}

func (s *script) special(path, typ string, rdev uint64) {
	more := ""
	if typ == "char" || typ == "block" {
		more = fmt.Sprintf(`,"rdev":%d`, rdev)
	}
	s.add(fmt.Sprintf(`"kind":"entry","path":%q,"type":%q,%s%s`, path, typ, attrsOf(0o600), more))
	s.entries = append(s.entries, transfer.TreeEntry{Path: path, Type: transfer.TreeType(typ), Rdev: rdev, TreeAttrs: transfer.TreeAttrs{Mode: 0o600}})
}

func (s *script) skip(path, code string) {
	s.skipped++
	s.add(fmt.Sprintf(`"kind":"skipped","path":%q,"code":%q,"message":"no"`, path, code))
}

// bigFile says a file of several pieces.
func (s *script) bigFile(path string, content []byte) {
	s.add(fmt.Sprintf(`"kind":"entry","path":%q,"type":"file",%s,"size":%d,"at":%d`, path, attrsOf(0o644), len(content), len(s.content)))
	for n := range transfer.Pieces(int64(len(content))) {
		b := content[n*piece : min(int64(len(content)), (n+1)*piece)]
		if strings.Trim(string(b), "\x00") == "" {
			s.add(`"kind":"zero","count":1`)
			continue
		}
		s.add(fmt.Sprintf(`"kind":"piece","value":"%s"`, transfer.HashPiece(b, n, false)))
	}
	d := sum(content)
	s.add(fmt.Sprintf(`"kind":"digest","digest":%q`, d))
	v, _ := transfer.ParseDigest(d)
	s.entries = append(s.entries, transfer.TreeEntry{Path: path, Type: transfer.TreeFile, Size: int64(len(content)), Digest: v, TreeAttrs: transfer.TreeAttrs{Mode: 0o644}})
	s.content = append(s.content, content...)
}

func (s *script) digest() string {
	var h transfer.TreeHash
	for i := range s.entries {
		h.Add(&s.entries[i])
	}
	return h.Digest()
}

func (s *script) Window(ctx context.Context, from, n, done int64) (io.ReadCloser, error) {
	var b strings.Builder
	head := s.header
	if head == "" {
		head = fmt.Sprintf(`{"kind":"tree","v":1,"piece":4194304,"root":{%s},"size":%d,"entries":%d,"exact":true}`, attrsOf(0o755), len(s.content), len(s.entries))
	}
	b.WriteString(head + "\n")
	end := min(from+n, int64(len(s.lines)))
	for k := from; k < end; k++ {
		fmt.Fprintf(&b, "{\"n\":%d,%s}\n", k, s.lines[k])
	}
	switch {
	case end < int64(len(s.lines)) || end == from+n && s.end == "" && end != int64(len(s.lines)):
		fmt.Fprintf(&b, "{\"kind\":\"window\",\"next\":%d}\n", end)
	case s.end != "":
		b.WriteString(s.end + "\n")
	default:
		fmt.Fprintf(&b, "{\"kind\":\"end\",\"digest\":%q,\"size\":%d,\"entries\":%d,\"skipped\":%d}\n", s.digest(), len(s.content), len(s.entries), s.skipped)
	}
	return io.NopCloser(strings.NewReader(b.String())), nil
}

type forEver struct{}

func (forEver) Read(p []byte) (int, error) { return len(p), nil }

func (s *script) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	s.requests.Add(1)
	s.wire.Add(length)
	if off+length > int64(len(s.content)) {
		return nil, api.BadRange.Err("beyond the content")
	}
	b := append([]byte(nil), s.content[off:off+length]...)
	if s.tamper != nil {
		s.tamper(off, b)
	}
	if s.short {
		b = b[:len(b)-1]
	}
	var r io.Reader = strings.NewReader(string(b))
	if s.endless {
		r = io.MultiReader(r, forEver{})
	}
	return io.NopCloser(r), nil
}

func (s *script) Rehash(ctx context.Context, n int64) (io.ReadCloser, error) {
	if n < 0 || n >= int64(len(s.lines)) || s.rehash == nil {
		return nil, api.BadRange.Err("no")
	}
	head, _ := s.Window(ctx, int64(len(s.lines)), 1, 0)
	first, _ := bufio.NewReader(head).ReadString('\n')
	return io.NopCloser(strings.NewReader(fmt.Sprintf("%s{\"n\":%d,%s}\n{\"kind\":\"window\",\"next\":%d}\n", first, n, s.rehash(s.lines[n]), n+1))), nil
}

// tree is a resource for trees and a task that imports into it.
type treeTarget struct {
	target
	policy transfer.TreePolicy
}

func newTree(t testing.TB) treeTarget { return treeTarget{target: newTarget(t)} }

// imp imports to the name "tree".
func (g treeTarget) imp(src transfer.Source) *transfer.Import {
	m := (&transfer.Import{Source: src, Root: g.root, Name: "tree", Task: "task", Dir: g.task, RetryFor: 1}).Fast()
	m.Tree = &transfer.TreeTarget{Policy: g.policy, Known: filepath.Join(g.task + ".known")}
	return m
}

func (g treeTarget) at(parts ...string) string {
	return filepath.Join(append([]string{g.dir, "tree"}, parts...)...)
}

// shape is what a tree looks like, entry by entry, as far as a copy keeps it.
func shape(t testing.TB, top string) map[string]string {
	t.Helper()
	all, first := map[string]string{}, map[[2]uint64]string{}
	var paths []string
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == transfer.StageDir {
			return filepath.SkipDir
		}
		paths = append(paths, p)
		return nil
	})
	require.NoError(t, err)
	sort.Strings(paths)
	for _, p := range paths {
		var st unix.Stat_t
		require.NoError(t, unix.Lstat(p, &st))
		rel, _ := filepath.Rel(top, p)
		s := fmt.Sprintf("%o %d.%09d", st.Mode, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			s += " " + sum(b)
			key := [2]uint64{uint64(st.Dev), st.Ino}
			if st.Nlink > 1 {
				if f, ok := first[key]; ok {
					s += " = " + f
				} else {
					first[key] = rel
				}
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			require.NoError(t, err)
			s += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			s += fmt.Sprint(" ", st.Rdev)
		}
		all[rel] = s
	}
	return all
}

// nothing checks that nobody can see anything of an import that failed.
func (g treeTarget) nothing(t testing.TB) {
	t.Helper()
	list, err := os.ReadDir(g.dir)
	require.NoError(t, err)
	for _, e := range list {
		require.Equal(t, transfer.StageDir, e.Name(), "visible at the target")
	}
}

var _ = syscall.EIO
