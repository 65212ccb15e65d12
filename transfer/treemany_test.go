package transfer_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var treeEntries = flag.Int("tree.entries", 20_000, "entries of one directory in the test of a tree's memory; 1000000 in the campaign")

// maxTreeRSS is what a process that exports a tree may take, whatever the tree has.
const maxTreeRSS = 64 << 20

// TestTreeExportOfManyEntries: the memory of an export does not grow with the entries, not even
// when all are in one directory. A sixth of them are further names of one in ten files.
func TestTreeExportOfManyEntries(t *testing.T) {
	dir, work := t.TempDir(), t.TempDir()
	for i := range *treeEntries {
		name := filepath.Join(dir, fmt.Sprintf("entry-%07d", i))
		if i%6 == 5 {
			require.NoError(t, os.Link(filepath.Join(dir, fmt.Sprintf("entry-%07d", i-5)), name))
			continue
		}
		require.NoError(t, os.WriteFile(name, []byte(strconv.Itoa(i)), 0o600))
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, "-test.run=^TestTreeManyChild$", "-test.v", "-test.timeout=1h")
	cmd.Env = append(os.Environ(), "GANTRY_TREE_MANY="+dir, "GANTRY_TREE_WORK="+work)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
	require.Contains(t, string(out), fmt.Sprintf("entries %d of %d", *treeEntries, *treeEntries))
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(out)
	require.NotNil(t, m, "%s", out)
	rss, err := strconv.Atoi(string(m[1]))
	require.NoError(t, err)
	if !raceDetector {
		require.LessOrEqual(t, rss<<10, maxTreeRSS)
	}
}

// TestTreeManyChild exports a tree in a process of its own and says what that took.
func TestTreeManyChild(t *testing.T) {
	dir := os.Getenv("GANTRY_TREE_MANY")
	if dir == "" {
		t.Skip("runs as a child of another test")
	}
	x, err := transfer.OpenTree(openRoot(t, dir), "", os.Getenv("GANTRY_TREE_WORK"), transfer.TreeOptions{Known: os.Getenv("GANTRY_TREE_WORK") + "/known"}, transfer.Silent{})
	require.NoError(t, err)
	defer x.Close()
	begin := time.Now()
	var c transfer.TreeCursor
	entries := 0
	var w transfer.TreeWindow
	for !w.End {
		r := pipe(func(w io.Writer) error { return x.Window(t.Context(), c.Next, 1024, c.Next, w) })
		w, err = transfer.ReadTreeWindow(r, &c, 1024, func(_ transfer.TreeHeader, l transfer.TreeLine) error {
			if l.Kind == transfer.TreeKindEntry {
				entries++
			}
			return nil
		})
		require.NoError(t, err)
		require.NoError(t, r.Close())
	}
	fmt.Printf("entries %d of %d in %v\n", entries, w.Entries, time.Since(begin))
	begin = time.Now()
	for off := int64(0); off < w.Size; off += 16 << 20 {
		content, err := x.Content(t.Context(), off, min(16<<20, w.Size-off))
		require.NoError(t, err)
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, content, make([]byte, 256<<10))
		require.NoError(t, err)
		require.NoError(t, content.Close())
	}
	fmt.Printf("content %d bytes in %v\n", w.Size, time.Since(begin))
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	fmt.Printf("%s\n", status)
}
