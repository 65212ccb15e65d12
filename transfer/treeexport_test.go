package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// shell runs a script in dir.
func shell(t testing.TB, dir, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// need skips when a tool is missing.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

// tree opens an export of dir.
func tree(t testing.TB, dir, work string, o transfer.TreeOptions) *transfer.TreeExport {
	t.Helper()
	x, err := transfer.OpenTree(openRoot(t, dir), "", work, o, transfer.Silent{})
	require.NoError(t, err)
	t.Cleanup(func() { x.Close() })
	return x
}

// manifest reads a whole manifest in windows of n lines.
func manifest(t testing.TB, x *transfer.TreeExport, c *transfer.TreeCursor, n int64) ([]transfer.TreeLine, transfer.TreeWindow) {
	t.Helper()
	var lines []transfer.TreeLine
	for {
		w, err := treeWindow(t.Context(), x, c, n, &lines)
		require.NoError(t, err)
		if w.End {
			return lines, w
		}
	}
}

func treeWindow(ctx context.Context, x *transfer.TreeExport, c *transfer.TreeCursor, n int64, lines *[]transfer.TreeLine) (transfer.TreeWindow, error) {
	r := pipe(func(w io.Writer) error { return x.Window(ctx, c.Next, n, c.Next, w) })
	defer r.Close()
	return transfer.ReadTreeWindow(r, c, n, func(_ transfer.TreeHeader, l transfer.TreeLine) error {
		l.Raw = bytes.Clone(l.Raw)
		*lines = append(*lines, l)
		return nil
	})
}

// listing is what the manifest says, as find prints it.
func listing(lines []transfer.TreeLine) (entries, skipped []string) {
	kind := map[transfer.TreeType]string{"dir": "d", "file": "f", "symlink": "l", "fifo": "p", "socket": "s", "char": "c", "block": "b", "link": "f"}
	first := map[string]transfer.TreeEntry{}
	for _, l := range lines {
		e := l.Entry
		switch l.Kind {
		case transfer.TreeKindSkipped:
			skipped = append(skipped, l.Code+" "+l.Path)
		case transfer.TreeKindEntry:
			if e.Type == transfer.TreeFile {
				first[e.Path] = e
			}
			if e.Type == transfer.TreeLink {
				e, e.Target = first[e.Target], ""
				e.Path = l.Entry.Path
			}
			size := int64(0)
			if e.Type == transfer.TreeFile {
				size = e.Size
			}
			entries = append(entries, fmt.Sprintf("%s %s %o %d:%d %d %s %d", e.Path, kind[l.Entry.Type], e.Mode, e.UID, e.GID, e.MTime.UnixNano(), e.Target, size))
		}
	}
	return entries, skipped
}

// found is what find says of a tree, in the same form.
func findListing(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	out := shell(t, dir, `find . -mindepth 1 -printf '%P\t%y\t%m\t%U:%G\t%T@\t%l\t%s\0'`)
	for line := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		f := strings.Split(line, "\t")
		if transfer.CheckName(f[0]) != nil || strings.Contains(f[5], "\n") {
			continue // nobody can be told of it
		}
		if f[1] != "f" {
			f[6] = "0"
		}
		sec, frac, _ := strings.Cut(f[4], ".")
		all = append(all, fmt.Sprintf("%s %s %s %s %s %s %s", f[0], f[1], f[2], f[3], sec+frac[:9], f[5], f[6]))
	}
	return all
}

// nasty makes a tree of everything that a file system may hold.
func nasty(t testing.TB) string {
	t.Helper()
	need(t, "setfattr", "setfacl", "find", "bash")
	dir := t.TempDir()
	shell(t, dir, `
mkdir -p a/b/c a.x a! deep "sp ace" empty; : > zero; echo one > a/one; echo x > a.x/f; echo y > 'a!/f'
printf '%04d' {1..300} > a/b/c/data; ln a/one a/b/two; ln a/one z-three; ln -s ../../../etc/passwd a/out; ln -s nowhere dangling
head -c 9000000 /dev/urandom > large; truncate -s 20000000 sparse; head -c 4194304 /dev/urandom > exact; head -c 4194305 /dev/urandom > exact1; ln large large-link
mkfifo fifo; chmod 4755 a/b/c/data; chmod 1777 deep; chmod 700 empty; touch -d '1969-12-31 23:59:59 UTC' zero; touch -d '2100-01-02 03:04:05.000000001 UTC' 'sp ace'
setfattr -n user.kind -v nasty a/b/c/data; setfattr -n user.dir -v yes a; setfacl -m u:1234:r a.x/f
: > $'bad\nname'; : > $'bad\xffname'; mkdir $'bad\x01dir'; : > $'bad\x01dir/inside'; ln -s $'to\nno' badlink; mkdir .gantry; : > .gantry/hidden; mkdir a/.gantry
p=deep; for i in $(seq 60); do p=$p/d$i; done; mkdir -p $p; echo end > $p/end; touch "ünï-é" $(printf 'n%.0s' $(seq 255))
python3 - <<-E
	import socket; socket.socket(socket.AF_UNIX).bind("sock")
	E
`)
	return dir
}

func TestTreeExportAgainstFind(t *testing.T) {
	dir := nasty(t)
	x := tree(t, dir, t.TempDir(), transfer.TreeOptions{Special: true, Xattrs: transfer.XattrsAll})
	var c transfer.TreeCursor
	lines, w := manifest(t, x, &c, 7)
	entries, skipped := listing(lines)
	good := findListing(t, dir)
	require.ElementsMatch(t, good, entries)
	require.ElementsMatch(t, []string{`bad_name bad\nname`, `bad_name bad\xffname`, `bad_name bad\x01dir`, `bad_name badlink`, `bad_name a/.gantry`}, skipped)
	require.EqualValues(t, len(good), w.Entries)
	require.Equal(t, x.Digest(), w.Digest)
	require.Equal(t, x.Size(), w.Size)

	byPath := map[string]transfer.TreeEntry{}
	for _, l := range lines {
		if l.Kind == transfer.TreeKindEntry || l.Kind == transfer.TreeKindDigest {
			byPath[l.Entry.Path] = l.Entry
		}
	}
	require.Equal(t, "nasty", string(byPath["a/b/c/data"].Xattrs["user.kind"]))
	require.Contains(t, byPath["a.x/f"].Xattrs, "system.posix_acl_access")
	require.Equal(t, transfer.TreeLink, byPath["a/one"].Type)
	require.Equal(t, "a/b/two", byPath["a/one"].Target)
	require.Equal(t, "large", byPath["large-link"].Target)

	// Every file's digest is what b3sum prints, every byte of the content is its file's.
	content, err := x.Content(t.Context(), 0, w.Size)
	require.NoError(t, err)
	all, err := io.ReadAll(content)
	require.NoError(t, err)
	require.NoError(t, content.Close())
	for path, e := range byPath {
		if e.Type != transfer.TreeFile {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, all[e.At:e.At+e.Size]), path)
		require.Equal(t, b3sum(t, filepath.Join(dir, path)), transfer.FormatDigest(e.Digest), path)
	}
}

// TestTreeExportRestart: at whatever line a node is stopped, and at whatever byte its spool is torn,
// it goes on to the same manifest.
func TestTreeExportRestart(t *testing.T) {
	dir := nasty(t)
	work := t.TempDir()
	o := transfer.TreeOptions{Special: true, Xattrs: transfer.XattrsUser}
	var all transfer.TreeCursor
	lines, w := manifest(t, tree(t, dir, t.TempDir(), o), &all, 1000)
	var c transfer.TreeCursor
	var got []transfer.TreeLine
	for k := 0; ; k++ {
		x := tree(t, dir, work, o)
		w, err := treeWindow(t.Context(), x, &c, 2, &got)
		require.NoError(t, err)
		require.NoError(t, x.Close())
		if w.End {
			break
		}
		if k%3 == 0 { // a torn line behind what was read, and one in the records
			for _, name := range []string{"tree.lines", "tree.files"} {
				f, err := os.OpenFile(filepath.Join(work, name), os.O_APPEND|os.O_WRONLY, 0)
				require.NoError(t, err)
				_, err = f.WriteString(`{"kind":"entry","n":`)
				require.NoError(t, err)
				require.NoError(t, f.Close())
			}
		}
	}
	require.Equal(t, w.Digest, c.Digest())
	raw := func(lines []transfer.TreeLine) (s []string) {
		for _, l := range lines {
			if l.Kind != transfer.TreeKindZero && l.Kind != transfer.TreeKindSkipped {
				_, rest, _ := strings.Cut(string(l.Raw), `,"`) // without the kind
				_, rest, _ = strings.Cut(rest, `,`)            // without n
				s = append(s, rest)
			}
		}
		return s
	}
	require.Equal(t, raw(lines), raw(got))
	require.Equal(t, all.Skipped, c.Skipped)
}

func TestTreeExportGoesNoFurtherThanAsked(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%02d", i)), []byte{byte(i)}, 0o600))
	}
	work := t.TempDir()
	x := tree(t, dir, work, transfer.TreeOptions{})
	var c transfer.TreeCursor
	var lines []transfer.TreeLine
	_, err := treeWindow(t.Context(), x, &c, 10, &lines)
	require.NoError(t, err)
	require.NoError(t, x.Close())
	spool, err := os.ReadFile(filepath.Join(work, "tree.lines"))
	require.NoError(t, err)
	require.Equal(t, 10, bytes.Count(spool, []byte("\n")))
	require.EqualValues(t, -1, x.Size())
}

func TestTreeExportChanges(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
	}
	for _, name := range []string{"a", "b", "c"} {
		write(name, "data of "+name)
	}
	x := tree(t, dir, t.TempDir(), transfer.TreeOptions{})
	lines, w := manifest(t, x, new(transfer.TreeCursor), 100)
	require.EqualValues(t, 27, w.Size)
	v, err := transfer.ReadTreeRehash(pipe(func(w io.Writer) error { return x.Rehash(t.Context(), 1, w) }), 1)
	require.NoError(t, err)
	require.Equal(t, lines[1].Entry.Digest, v)

	write("b", "other at b")
	content, err := x.Content(t.Context(), 0, 27)
	require.NoError(t, err)
	got, err := io.ReadAll(content)
	require.NoError(t, err)
	require.Equal(t, "data of adata of bdata of c", string(got), "kept since it was hashed")
	require.NoError(t, content.Close())

	content, err = x.Content(t.Context(), 0, 27) // kept for one reader only
	require.NoError(t, err)
	got, err = io.ReadAll(content)
	requireCode(t, api.SourceChanged, err)
	require.Equal(t, "data of a", string(got))
	require.NoError(t, content.Close())
	_, err = x.Content(t.Context(), 9, 18)
	requireCode(t, api.SourceChanged, err)
	require.ErrorContains(t, err, `"b" changed`)
	content, err = x.Content(t.Context(), 18, 9) // what is behind it can still be had
	require.NoError(t, err)
	got, err = io.ReadAll(content)
	require.NoError(t, err)
	require.Equal(t, "data of c", string(got))
	require.NoError(t, content.Close())
	_, err = transfer.ReadTreeRehash(pipe(func(w io.Writer) error { return x.Rehash(t.Context(), 1, w) }), 1)
	requireCode(t, api.SourceChanged, err)

	require.NoError(t, os.Remove(filepath.Join(dir, "c")))
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "c")))
	_, err = x.Content(t.Context(), 18, 9)
	requireCode(t, api.SourceChanged, err)
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 28}, {28, 0}, {1 << 62, 1 << 62}} {
		_, err = x.Content(t.Context(), r[0], r[1])
		requireCode(t, api.BadRange, err)
	}
	for _, n := range []int64{-1, 3} {
		requireCode(t, api.BadRange, x.Rehash(t.Context(), n, io.Discard))
	}
	requireCode(t, api.BadRange, x.Window(t.Context(), 4, 1, 0, io.Discard))
}

// TestTreeExportLargeChanges: a file of several pieces that is written to while it
// is hashed is dropped, and what comes after it is there.
func TestTreeExportLargeChanges(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	require.NoError(t, os.WriteFile(large, content(1, 3*piece+5), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "next"), []byte("next"), 0o600))
	x := tree(t, dir, t.TempDir(), transfer.TreeOptions{})
	var c transfer.TreeCursor
	var lines []transfer.TreeLine
	_, err := treeWindow(t.Context(), x, &c, 2, &lines)
	require.NoError(t, err)
	require.True(t, c.Open())
	require.NoError(t, os.Chtimes(large, time.Now(), time.Now()))
	lines, w := manifest(t, x, &c, 100)
	kinds := []string{}
	for _, l := range lines {
		kinds = append(kinds, l.Kind)
	}
	require.Equal(t, "dropped", kinds[len(kinds)-2], "%v", kinds)
	require.Equal(t, "next", lines[len(lines)-1].Entry.Path)
	require.EqualValues(t, 1, w.Entries)
	require.EqualValues(t, 1, w.Skipped)
	got, err := x.Content(t.Context(), 3*piece+5, 4)
	require.NoError(t, err)
	data, err := io.ReadAll(got)
	require.NoError(t, err)
	require.Equal(t, "next", string(data))
	require.NoError(t, got.Close())
}

// TestTreeExportLinkToDropped: further names of a file that was dropped are no links to it, not
// after a restart either, and they are reported.
func TestTreeExportLinkToDropped(t *testing.T) {
	dir, work := t.TempDir(), t.TempDir()
	large := filepath.Join(dir, "a")
	require.NoError(t, os.WriteFile(large, content(1, 2*piece+5), 0o600))
	for _, name := range []string{"b", "c"} {
		require.NoError(t, os.Link(large, filepath.Join(dir, name)))
	}
	x := tree(t, dir, work, transfer.TreeOptions{})
	var c transfer.TreeCursor
	var lines []transfer.TreeLine
	_, err := treeWindow(t.Context(), x, &c, 1, &lines)
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(large, time.Now(), time.Now()))
	_, err = treeWindow(t.Context(), x, &c, 2, &lines)
	require.NoError(t, err)
	require.NoError(t, x.Close())
	_, w := manifest(t, tree(t, dir, work, transfer.TreeOptions{}), &c, 100)
	require.EqualValues(t, 0, w.Entries)
	require.EqualValues(t, 3, w.Skipped)
}

func TestTreeExportOpen(t *testing.T) {
	dir := nasty(t)
	root := openRoot(t, dir)
	for name, code := range map[string]*api.Code{"a/one": api.NotRegular, "a/out": api.NotRegular, "../x": api.BadPath, ".gantry": api.BadPath, "none": api.NotFound} {
		_, err := transfer.OpenTree(root, name, t.TempDir(), transfer.TreeOptions{}, transfer.Silent{})
		requireCode(t, code, err)
	}
	work := t.TempDir()
	x, err := transfer.OpenTree(root, "a/b", work, transfer.TreeOptions{}, transfer.Silent{})
	require.NoError(t, err)
	lines, _ := manifest(t, x, new(transfer.TreeCursor), 100)
	require.Equal(t, []string{"c", "c/data", "two"}, []string{lines[0].Entry.Path, lines[1].Entry.Path, lines[2].Entry.Path})
	require.NoError(t, x.Check())
	require.NoError(t, x.Close())

	// The special files are reported, not told, unless they are wanted.
	lines, _ = manifest(t, tree(t, dir, t.TempDir(), transfer.TreeOptions{}), new(transfer.TreeCursor), 1000)
	_, skipped := listing(lines)
	require.Contains(t, skipped, "special fifo")
	require.Contains(t, skipped, "special sock")

	// Another directory in the place of the one that was begun with.
	require.NoError(t, os.Rename(filepath.Join(dir, "a/b"), filepath.Join(dir, "a/old")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "a/b"), 0o700))
	_, err = transfer.OpenTree(root, "a/b", work, transfer.TreeOptions{}, transfer.Silent{})
	requireCode(t, api.SourceChanged, err)
}

// TestTreeExportUnreadable: what may not be read is reported one by one, and the rest is there.
func TestTreeExportUnreadable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make files that another user cannot read")
	}
	need(t, "setpriv", "bash")
	exe, err := os.Executable()
	require.NoError(t, err)
	dir, work := t.TempDir(), t.TempDir()
	shell(t, dir, `mkdir open closed nolist; echo a > open/a; echo b > closed/b; echo c > nolist/c; echo d > secret; echo e > z; chmod 700 closed; chmod 711 nolist; chmod 600 secret; ln secret secret2`)
	for _, d := range []string{dir, work, filepath.Dir(dir), filepath.Dir(work)} {
		require.NoError(t, os.Chmod(d, 0o777))
	}
	cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", exe, "-test.run=^TestTreeChild$", "-test.v")
	cmd.Env = append(os.Environ(), "GANTRY_TREE_CHILD="+dir, "GANTRY_TREE_WORK="+work, "TMPDIR="+work)
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "permission denied") && strings.Contains(string(out), "exec") {
		t.Skipf("the test program cannot be run by another user: %s", out)
	}
	require.NoError(t, err, "%s", out)
	for _, line := range []string{"entry closed", "skipped denied closed", "entry nolist", "skipped denied nolist", "entry open/a", "skipped denied secret", "skipped denied secret2", "entry z"} {
		require.Contains(t, string(out), "\n"+line+"\n")
	}
}

// TestTreeChild prints the manifest of a tree, as the user that it runs as.
func TestTreeChild(t *testing.T) {
	dir := os.Getenv("GANTRY_TREE_CHILD")
	if dir == "" {
		t.Skip("runs as a child of another test")
	}
	x := tree(t, dir, os.Getenv("GANTRY_TREE_WORK"), transfer.TreeOptions{Known: os.Getenv("GANTRY_TREE_KNOWN")})
	lines, _ := manifest(t, x, new(transfer.TreeCursor), 1000)
	fmt.Println()
	for _, l := range lines {
		fmt.Println(strings.Join(strings.Fields(fmt.Sprint(l.Kind, " ", l.Code, " ", l.Path, l.Entry.Path)), " "))
	}
}
