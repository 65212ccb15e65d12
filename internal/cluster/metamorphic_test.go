package cluster_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gantry/api"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

var metamorphs = flag.Int("metamorphs", 30, "copies that must not depend on how they are made")

// A way is one way to make a copy. Whatever it is, the digest and the kinds of
// records are the same.
type way struct {
	front    front.Kind
	push     bool
	parallel int
	old      bool // an edited copy is there already
	cuts     int
	flags    []string
}

func (w way) String() string {
	direction := "pull"
	if w.push {
		direction = "push"
	}
	return fmt.Sprintf("%s %s, %d streams, old copy %v, %d cuts, %v", w.front, direction, w.parallel, w.old, w.cuts, w.flags)
}

// TestMetamorphic makes random files and trees and copies each in a plain way and
// in a random other one.
func TestMetamorphic(t *testing.T) {
	t.Parallel()
	first := theSeed(t)
	r := rand.New(rand.NewPCG(first, 7))
	clusters := map[front.Kind]*cluster.Cluster{}
	for _, kind := range front.Kinds {
		if _, err := front.Program(kind); kind != front.EmbeddedServer && err != nil {
			t.Logf("without %s: %v", kind, err)
			continue
		}
		clusters[kind] = newCluster(t, cluster.Options{Front: kind, Proxied: true, Dirs: []string{"trees"}, Extra: func(_, dir string) string {
			return fmt.Sprintf("\n[[resource]]\nname = \"trees\"\nkind = \"tree\"\npath = %q\nwritable = true\n", filepath.Join(dir, "trees"))
		}}, nil)
	}
	for i := range *metamorphs {
		s := r.Uint64()
		if !t.Run(fmt.Sprintf("%d", i), func(t *testing.T) { metamorphic(t, clusters, s) }) {
			t.Fatalf("with -seed %d", first)
		}
	}
	t.Logf("cases: %d, seed %d", *metamorphs, first)
}

// metamorphic is one case: what is made of s, twice.
func metamorphic(t *testing.T, clusters map[front.Kind]*cluster.Cluster, s uint64) {
	r := rand.New(rand.NewPCG(s, 1))
	tree := r.IntN(2) == 0
	plain := way{front: front.EmbeddedServer, parallel: 4}
	other := randomWay(r, clusters, tree)
	t.Logf("tree %v: %v", tree, other)
	want, kinds := makeWay(t, clusters[plain.front], plain, s, tree)
	got, also := makeWay(t, clusters[other.front], other, s, tree)
	require.Equal(t, want.Digest, got.Digest, "%v", other)
	require.Equal(t, want.Size, got.Size)
	require.Equal(t, kinds, also, "kinds of records, %v", other)
}

func randomWay(r *rand.Rand, clusters map[front.Kind]*cluster.Cluster, tree bool) way {
	var kinds []front.Kind
	for _, k := range front.Kinds {
		if clusters[k] != nil {
			kinds = append(kinds, k)
		}
	}
	w := way{front: kinds[r.IntN(len(kinds))], push: r.IntN(2) == 0, parallel: 1 + 3*r.IntN(2), old: r.IntN(2) == 0, cuts: r.IntN(3)}
	options := []string{"--verify=disk", "--compress=auto", "--checksum", "--keep-old", "--trust-mtime"}
	for _, o := range options {
		if r.IntN(4) == 0 && (o != "--keep-old" || w.old) && (o != "--checksum" || !slices.Contains(w.flags, "--trust-mtime")) {
			w.flags = append(w.flags, o)
		}
	}
	if slices.Contains(w.flags, "--checksum") {
		w.flags = slices.DeleteFunc(w.flags, func(s string) bool { return s == "--trust-mtime" })
	}
	if tree { // what of these only a file has
		w.flags = slices.DeleteFunc(w.flags, func(s string) bool { return s == "--verify=disk" || s == "--trust-mtime" })
	}
	return w
}

// makeWay makes the source of s at alpha, copies it in one way, compares source
// and target, and removes both.
func makeWay(t *testing.T, c *cluster.Cluster, w way, s uint64, tree bool) (api.ImportResult, []string) {
	t.Helper()
	resource := cluster.Resource
	if tree {
		resource = "trees"
	}
	name := "m" + strconv.FormatUint(s, 36)
	source, target := filepath.Join(c.NodeDir("alpha"), resource, name), filepath.Join(c.NodeDir("beta"), resource, name)
	defer os.RemoveAll(source)
	defer removeLike(t, target)
	size := sprout(t, source, s, tree)
	if w.old {
		sprout(t, target, s, tree)
		edit(t, target, s, tree)
		own(t, c, target)
	}
	own(t, c, source)
	args := []string{"copy", "--json", "--new", "--parallel", strconv.Itoa(w.parallel), "--pull"}
	cut := c.Proxy("alpha").Cut
	if w.push {
		args[len(args)-1] = "--push"
		cut = c.Proxy("beta").CutUp
	}
	if w.old {
		args = append(args, "--replace")
		if tree {
			args = append(args, "--delete")
		}
	}
	cut(w.cuts, size)
	defer cut(0, 0)
	code, out, stderr := gantry(t, c, append(append(args, w.flags...), "alpha:"+resource+"/"+name, "beta:"+resource+"/"+name)...)
	require.Zero(t, code, "%v\n%s\n%s", w, out, stderr)
	if tree {
		sameTree(t, source, target)
	} else {
		require.True(t, same(t, source, target))
	}
	return outcome(t, out)
}

// outcome is the result of a job's feed, and the kinds of records and states in
// it; log lines tell how it went, so they differ.
func outcome(t *testing.T, out string) (result api.ImportResult, kinds []string) {
	t.Helper()
	type record struct {
		Kind   string          `json:"kind"`
		State  string          `json:"state"`
		Value  json.RawMessage `json:"value"`
		Record *struct {
			Kind  string `json:"kind"`
			State string `json:"state"`
		} `json:"record"`
	}
	for line := range strings.Lines(out) {
		var rec record
		require.NoError(t, json.Unmarshal([]byte(line), &rec), line)
		switch {
		case rec.Kind == "result":
			require.NoError(t, json.Unmarshal(rec.Value, &result))
			kinds = append(kinds, "result")
		case rec.Kind == "task" && rec.Record.Kind != "log":
			kinds = append(kinds, "task "+rec.Record.Kind+" "+rec.Record.State)
		case rec.Kind == "state":
			kinds = append(kinds, "state "+rec.State)
		}
	}
	slices.Sort(kinds)
	return result, slices.Compact(kinds)
}

// own gives path to the responder.
func own(t *testing.T, c *cluster.Cluster, path string) {
	t.Helper()
	info, err := os.Stat(c.Path("alpha", ""))
	require.NoError(t, err)
	uid := info.Sys().(*syscall.Stat_t).Uid
	out, err := exec.Command("chown", "-hR", fmt.Sprintf("%d:%d", uid, uid), path).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// removeLike removes path and what --keep-old left beside it.
func removeLike(t *testing.T, path string) {
	left, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	for _, p := range left {
		require.NoError(t, os.RemoveAll(p))
	}
}

// sprout makes what s says at path: a file with holes and zeros, or a tree. The
// same s makes the same, times included.
func sprout(t *testing.T, path string, s uint64, tree bool) (size int64) {
	t.Helper()
	r := rand.New(rand.NewPCG(s, 2))
	if !tree {
		return growFile(t, path, r, r.Int64N(6*transfer.PieceSize))
	}
	require.NoError(t, os.Mkdir(path, 0o755))
	dirs, regular := []string{path}, []string{}
	for i := range 5 + r.IntN(60) {
		at := filepath.Join(dirs[r.IntN(len(dirs))], fmt.Sprintf("%c%d", 'a'+rune(r.IntN(26)), i))
		switch r.IntN(8) {
		case 0, 1:
			require.NoError(t, os.Mkdir(at, 0o755))
			dirs = append(dirs, at)
		case 2:
			require.NoError(t, os.Symlink(fmt.Sprintf("../x%d", i), at))
		case 3:
			if len(regular) > 0 {
				require.NoError(t, os.Link(regular[r.IntN(len(regular))], at))
				break
			}
			fallthrough
		default:
			most := int64(40_000)
			if r.IntN(10) == 0 {
				most = 2 * transfer.PieceSize
			}
			size += growFile(t, at, r, r.Int64N(most))
			regular = append(regular, at)
		}
	}
	stamp(t, dirs)
	return size
}

// stamp gives directories a time; making what is in them changed it.
func stamp(t *testing.T, dirs []string) {
	t.Helper()
	for i, dir := range slices.Backward(dirs) {
		ts := []syscall.Timespec{{Sec: 1_700_000_000}, {Sec: 1_700_000_000 + int64(i)}}
		require.NoError(t, syscall.UtimesNano(dir, ts))
	}
}

func growFile(t *testing.T, path string, r *rand.Rand, size int64) int64 {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, os.FileMode(0o600|r.IntN(0o100)))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(size))
	for range r.IntN(4) {
		at := r.Int64N(size + 1)
		buf := make([]byte, r.Int64N(size-at+1))
		for i := range buf {
			buf[i] = byte(r.Uint32())
		}
		_, err := f.WriteAt(buf, at)
		require.NoError(t, err)
	}
	ts := []syscall.Timespec{{Sec: 1_700_000_000}, {Sec: 1_600_000_000 + r.Int64N(1e8), Nsec: r.Int64N(1e9)}}
	require.NoError(t, syscall.UtimesNano(path, ts))
	return size
}

// edit makes an old copy of what is at path.
func edit(t *testing.T, path string, s uint64, tree bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(s, 3))
	if !tree {
		editFile(t, path, r)
		return
	}
	var regular []string
	require.NoError(t, filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			regular = append(regular, p)
		}
		return err
	}))
	for i, p := range regular {
		switch r.IntN(6) {
		case 0:
			editFile(t, p, r)
		case 1:
			require.NoError(t, os.Remove(p))
		case 2:
			require.NoError(t, os.Rename(p, fmt.Sprintf("%s-renamed%d", p, i)))
		case 3:
			require.NoError(t, os.WriteFile(p+"-extra", []byte("extra"), 0o600))
		}
	}
}

func editFile(t *testing.T, path string, r *rand.Rand) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	for range 1 + r.IntN(5) {
		_, err := f.WriteAt([]byte{byte(r.Uint32()), 1, 2}, r.Int64N(info.Size()+1))
		require.NoError(t, err)
	}
	if r.IntN(3) == 0 {
		require.NoError(t, f.Truncate(r.Int64N(info.Size()+1)))
	}
}
