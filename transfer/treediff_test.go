package transfer_test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// tools skips a test that needs programs that are not here, or root.
func tools(t testing.TB, names ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make devices and to give files away")
	}
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs " + name)
		}
	}
}

func sh(t testing.TB, script string, args ...string) string {
	t.Helper()
	out, err := exec.Command("bash", append([]string{"-ec", script, "bash"}, args...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// asListed is what independent programs say of a tree: every entry with mode,
// owner, size, time, target and number of names, all attributes and lists.
func asListed(t testing.TB, dir string) string {
	t.Helper()
	return sh(t, `cd "$1"
		find . -mindepth 1 -name .gantry -prune -o -mindepth 1 -printf '%P %y %m %U:%G %n %T@ %l\n' | sed -E 's/^(.* d [0-9]+ [^ ]+) [0-9]+ /\1 /' | LC_ALL=C sort
		find . -mindepth 1 -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
		find . -mindepth 1 -type b,c -exec stat -c '%n %t:%T' {} + | LC_ALL=C sort
		find . -mindepth 1 -print0 | LC_ALL=C sort -z | xargs -0 -r getfattr -h -d -m - 2>/dev/null
		find . -mindepth 1 -not -type l -not -type s -print0 | LC_ALL=C sort -z | xargs -0 -r getfacl -n 2>/dev/null | grep -v '^# owner\|^# group\|^# flags'`, dir)
}

// nastyTree makes a tree with everything that a file system has.
func nastyTree(t testing.TB, dir string) {
	t.Helper()
	sh(t, `cd "$1"; mkdir -p a/b/c empty closed 'two  words' sticky setgid acl
		echo one > a/one; ln a/one a/b/uno; ln a/one zz-last; ln -s ../../etc/passwd a/out; ln -s loop loop
		: > a/empty; head -c 4194304 /dev/urandom > piece; head -c 4194305 /dev/urandom > more; truncate -s 20M hole; printf x | dd of=hole bs=1 seek=9000000 conv=notrunc status=none
		echo x > closed/x; chmod 0000 closed; echo y > 'two  words/-rf *'; echo q > "it's \"quoted\" \\"; echo u > ünïcödé; echo U > ÜNÏCÖDÉ
		mkfifo fifo; mknod null c 1 3; mknod disk b 7 99; python3 -c 'import socket;socket.socket(socket.AF_UNIX).bind("sock")' || mkfifo sock
		cp /bin/true suid; chmod 4755 suid; chmod 1777 sticky; chmod 2775 setgid; echo g > setgid/g; chgrp 7 setgid
		echo o > owned; chown 1234:2345 owned; chown -h 12:13 loop; chmod 0000 a/empty
		setfattr -n user.one -v 'a value' owned; setfattr -n user.bin -v 0x00ff00 a; setfattr -n trusted.t -v t owned
		setfacl -m u:1234:r,g:2345:rw owned; setfacl -d -m u:1234:rwx acl; echo in > acl/in; chmod 640 acl/in; setfacl -b acl/in
		setcap cap_net_raw+ep suid 2>/dev/null || true
		touch -d '1969-12-31T23:59:58.123456789Z' a/one; touch -h -d '2038-01-20T00:00:00.000000001Z' a/out; touch -d '2001-09-09T01:46:40.5Z' closed a/b empty
		touch -h -d '2010-05-05T05:05:05.123456789Z' loop disk null fifo more`, dir) // rsync leaves a time alone that is of the same second
}

// noSocket takes the entry "sock" out of a listing.
func noSocket(s string) string {
	var keep []string
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "sock ") && !strings.Contains(line, "file: sock\n") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}

// noDirTimes leaves out what rsync does not keep: the time of sockets, and that of
// directories to less than a second.
func noDirTimes(s string) string {
	return regexp.MustCompile(`(?m)^(.* d [0-9]+ [^ ]+ -?[0-9]+)\.[0-9]+ $`).ReplaceAllString(noSocket(s), "$1")
}

// sameLines compares listings and names the first lines that differ.
func sameLines(t testing.TB, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		require.Equal(t, w[i], g[i])
	}
	require.Equal(t, len(w), len(g))
}

// TestTreeDifferential compares imports with what rsync and tar make of the same
// tree, entry by entry.
func TestTreeDifferential(t *testing.T) {
	tools(t, "rsync", "tar", "setfattr", "setfacl", "getfacl")
	from := filepath.Join(t.TempDir(), "from")
	require.NoError(t, os.Mkdir(from, 0o755))
	nastyTree(t, from)
	sh(t, `go=$(go env GOROOT); cp -a "$go/src/fmt" "$go/src/archive" "$1"`, from)
	want := asListed(t, from)

	dir := t.TempDir()
	sh(t, `rsync -aHAX "$1/" "$2/rsync"; mkdir "$2/tar"; tar -C "$1" --xattrs --xattrs-include='*' --acls -cf - . 2>/dev/null | tar -C "$2/tar" --xattrs --xattrs-include='*' --acls -xpf -`, from, dir)
	sameLines(t, noDirTimes(want), noDirTimes(asListed(t, filepath.Join(dir, "rsync"))))
	g := newTree(t)
	g.policy = transfer.TreePolicy{Owner: transfer.OwnerKeep, Xattrs: transfer.XattrsAll, Special: transfer.SpecialKeep, SetID: transfer.SetIDKeep}
	all := transfer.TreeOptions{Special: true, Xattrs: transfer.XattrsAll}
	m := g.imp(openTreeOf(t, from, all))
	res, err := m.Run(context.Background())
	require.NoError(t, err)
	require.NoError(t, m.Clean(context.Background()))
	require.NoError(t, m.Discard())
	require.Zero(t, res.Entries.Skipped)
	sameLines(t, want, asListed(t, g.at()))
	require.Less(t, allocated(t, g.at("hole")), int64(9<<20))
	// tar cannot keep sockets; all else is as it has it.
	sameLines(t, noSocket(want), noSocket(asListed(t, filepath.Join(dir, "tar"))))

	// The same edits, then an update of each.
	sh(t, `cd "$1"; chmod 700 closed; rm closed/x a/b/uno; echo two >> a/one; rm -rf fmt/scan.go archive/zip; mkdir -p fmt/new; echo n > fmt/new/n
		printf z | dd of=more bs=1 seek=4194304 conv=notrunc status=none; mv piece piece2; rm loop; mkdir loop; chmod 711 sticky; setfattr -x user.one owned; setfacl -b owned; chown 5:6 suid`, from)
	sh(t, `rsync -aHAX --delete "$1/" "$2/rsync"`, from, dir)
	want = asListed(t, from)
	sameLines(t, noDirTimes(want), noDirTimes(asListed(t, filepath.Join(dir, "rsync"))))
	for _, mode := range []string{api.ModeReplace, api.ModeUpdate} {
		m = g.imp(openTreeOf(t, from, all))
		m.Mode, m.Tree.Extraneous, m.Dir = mode, api.ExtraneousDelete, t.TempDir()
		res, err = m.Run(context.Background())
		require.NoError(t, err)
		require.NoError(t, m.Clean(context.Background()))
		require.NoError(t, m.Discard())
		sameLines(t, want, asListed(t, g.at()))
	}
	require.Equal(t, api.TargetThere, res.Target)
}

// TestTreeDeep: 2,000 levels.
func TestTreeDeep(t *testing.T) {
	g, s := newTree(t), &script{}
	path := ""
	for range 2000 {
		path += "d"
		s.dir(path, 0o755)
		path += "/"
	}
	s.file(path+"x", "deep")
	res, err := g.imp(s).Run(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 2000, res.Entries.Dirs)
	m := g.imp(s)
	m.Mode, m.Dir = api.ModeUpdate, t.TempDir()
	res, err = m.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, api.TargetThere, res.Target)
	sh(t, `rm -r "$1"`, g.at())
}

var importEntries = flag.Int("transfer.imported", 50_000, "entries of the tree whose memory is measured")

// TestTreeMemory imports many entries and looks at the heap meanwhile.
func TestTreeMemory(t *testing.T) { t.Run("E81 many entries", manyEntries) }

func manyEntries(t *testing.T) {
	s := &script{}
	s.dir("d", 0o755)
	for i := range *importEntries {
		s.file(fmt.Sprintf("d/%07d", i), "x")
	}
	runtime.GC()
	var base, now runtime.MemStats
	runtime.ReadMemStats(&base)
	var most uint64
	g := treeTarget{target: targetIn(t, small(t, "2g"))} // creating files on a disk that others use can take minutes
	m := g.imp(s)
	m.Faults(func(op string) error {
		if op == "last" {
			runtime.GC()
			runtime.ReadMemStats(&now)
			most = now.HeapAlloc - min(base.HeapAlloc, now.HeapAlloc)
		}
		return nil
	})
	_, err := m.Run(context.Background())
	require.NoError(t, err)
	t.Logf("%d entries: %d KiB at the end", *importEntries, most>>10)
	require.Less(t, most, uint64(32<<20))
	count := 0
	require.NoError(t, filepath.WalkDir(g.at(), func(string, fs.DirEntry, error) error { count++; return nil }))
	require.Equal(t, *importEntries+2, count)
}
