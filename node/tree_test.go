package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// trees gives a machine the resource "home", a tree.
func (m *machine) trees(more string) string {
	m.t.Helper()
	dir := filepath.Join(m.dir, "home")
	require.NoError(m.t, os.MkdirAll(dir, 0o755))
	text, err := os.ReadFile(m.config)
	require.NoError(m.t, err)
	text = fmt.Appendf(text, `
[[resource]]
name = "home"
kind = "tree"
path = %q
%s
[[grant]]
who = "spiffe://demo/operator/ann"
may = ["list", "digest", "export", "import:create", "import:replace", "import:update"]
resources = ["home"]
`, dir, more)
	require.NoError(m.t, os.WriteFile(m.config, text, 0o644))
	return dir
}

// treeManifest reads the rest of a tree's manifest, two lines at a time.
func (m *machine) treeManifest(task string, c *transfer.TreeCursor) (paths []string, w transfer.TreeWindow) {
	m.t.Helper()
	for !w.End {
		r := m.ask("ann", "GET", fmt.Sprintf("/tasks/%s/manifest?from=%d&n=2", task, c.Next), nil, "")
		require.Equal(m.t, 200, r.status, r.body)
		var err error
		w, err = transfer.ReadTreeWindow(strings.NewReader(r.body), c, 2, func(_ transfer.TreeHeader, l transfer.TreeLine) error {
			paths = append(paths, l.Entry.Path)
			return nil
		})
		require.NoError(m.t, err)
	}
	return paths, w
}

// TestTreeExport asks a node for a tree, its root, a directory and a file, by HTTP, and
// restarts it meanwhile.
func TestTreeExport(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	dir := alpha.trees("")
	alpha.write("alpha/home/ann/mail/1", "first", 0o644)
	alpha.write("alpha/home/ann/mail/2", "second", 0o644)
	alpha.write("alpha/home/zoe", "third", 0o644)
	alpha.start()
	export := exportOf("home", "")
	alpha.follow("ann", export)
	content := "/tasks/" + export.ID + "/content"
	r := alpha.ask("ann", "GET", "/tasks/"+export.ID+"/manifest?from=0&n=3", nil, "")
	require.Contains(t, r.body, "ann/mail/1")

	// The size is not known yet, what is in the manifest is.
	r = alpha.ask("ann", "GET", content, map[string]string{"Range": "bytes=1-3"}, "")
	require.Equal(t, 206, r.status, r.body)
	require.Equal(t, "irs", r.body)
	require.Equal(t, "bytes 1-3/*", r.header.Get("Content-Range"))
	etag := r.header.Get("ETag")
	for _, wrong := range []string{"", "bytes=1-", "bytes=-1", "bytes=1-5", "bytes=7-9"} {
		r = alpha.ask("ann", "GET", content, map[string]string{"Range": wrong}, "")
		require.Equal(t, 416, r.status, "%s %s", wrong, r.body)
		require.Empty(t, r.header.Get("Content-Range"))
	}
	alpha.restart()
	c := new(transfer.TreeCursor)
	paths, win := alpha.treeManifest(export.ID, c)
	require.Equal(t, []string{"ann", "ann/mail", "ann/mail/1", "ann/mail/2", "zoe"}, paths)
	r = alpha.ask("ann", "GET", content, nil, "")
	require.Equal(t, "firstsecondthird", r.body)
	require.Equal(t, etag, r.header.Get("ETag"))
	r = alpha.ask("ann", "GET", content, map[string]string{"Range": "bytes=10-"}, "")
	require.Equal(t, "bytes 10-15/16", r.header.Get("Content-Range"))

	// A file that changed is refused, the others and the export go on.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ann/mail/2"), []byte("SECOND"), 0o644))
	r = alpha.ask("ann", "GET", content, map[string]string{"Range": "bytes=5-10"}, "")
	require.Equal(t, api.SourceChanged.Name, r.problem.Code)
	require.Contains(t, r.problem.Detail, `"ann/mail/2" changed`)
	r = alpha.ask("ann", "GET", content, map[string]string{"Range": "bytes=11-15"}, "")
	require.Equal(t, "third", r.body)
	require.NoError(t, alpha.as("ann").Finish(t.Context(), export.ID, "", win.Digest))
}

func TestTreeExportOfParts(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	alpha.trees("")
	alpha.write("alpha/home/ann/mail/1", "first", 0o644)
	alpha.write("alpha/home/ann/a.o", "object", 0o644)
	alpha.start()
	export := exportOf("home", "ann")
	alpha.follow("ann", export)
	paths, _ := alpha.treeManifest(export.ID, new(transfer.TreeCursor))
	require.Equal(t, []string{"a.o", "mail", "mail/1"}, paths)

	some := newRequest(api.OpExport, api.ExportArgs{File: api.File{Resource: "home"}, Filter: []string{"+ a.o", "- *.o", "- /ann/mail/"}})
	alpha.follow("ann", some)
	paths, _ = alpha.treeManifest(some.ID, new(transfer.TreeCursor))
	require.Equal(t, []string{"ann", "ann/a.o"}, paths)

	file := exportOf("home", "ann/mail/1")
	alpha.follow("ann", file)
	r := alpha.ask("ann", "GET", "/tasks/"+file.ID+"/manifest", nil, "")
	require.Contains(t, r.body, `{"kind":"file"`)
	require.Equal(t, "first", alpha.content(file.ID))

	for _, refused := range []*api.TaskRequest{exportOf("disks", ""), exportOf("home", "ann/.."), exportOf("home", "none"), exportOf("home", ".gantry")} {
		rec, err := alpha.run("ann", refused)
		if err == nil {
			require.Equal(t, api.NotFound.Name, codeOf(t, rec, err))
		} else {
			require.ErrorContains(t, err, api.BadPath.Name)
		}
	}
}

// TestTreeDigest: the digest of a tree is the same wherever the tree lies, and that of its export.
func TestTreeDigest(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	dir := alpha.trees(`special = "keep"`)
	alpha.write("alpha/home/one/a", "same", 0o644)
	alpha.write("alpha/home/one/b/c", "same too", 0o600)
	require.NoError(t, os.CopyFS(filepath.Join(dir, "two"), os.DirFS(filepath.Join(dir, "one"))))
	require.NoError(t, os.Chmod(filepath.Join(dir, "two/b/c"), 0o600))
	alpha.start()
	of := func(path string, full bool) api.DigestResult {
		rec, err := alpha.run("ann", newRequest(api.OpDigest, api.DigestArgs{File: api.File{Resource: "home", Path: path}, Full: full}))
		return resultOf[api.DigestResult](t, rec, err)
	}
	one := of("one", false)
	require.EqualValues(t, 12, one.Size)
	require.EqualValues(t, 3, one.Entries)
	require.Equal(t, one, of("two", false))
	require.Equal(t, one, of("one", true))
	require.NoError(t, os.Chmod(filepath.Join(dir, "two/b/c"), 0o644))
	require.NotEqual(t, one.Digest, of("two", false).Digest)
	export := exportOf("home", "one")
	alpha.follow("ann", export)
	_, win := alpha.treeManifest(export.ID, new(transfer.TreeCursor))
	require.Equal(t, one.Digest, win.Digest)
	require.Equal(t, digest([]byte("same")), of("one/a", false).Digest)
}
