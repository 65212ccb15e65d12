package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"gantry/api"
	"gantry/front"
	"gantry/internal/cluster"
	"gantry/transfer"
)

// Files of the tables of sparse images and changed files.
const (
	oldFile       = "old.img"
	percentFile   = "percent.img"   // 1% of the pieces of old.img changed
	scatteredFile = "scattered.img" // 0.1% of its blocks of 4 KiB
	sparseFile    = "sparse.img"    // 1/16 is data
)

// result runs a copy and returns its result.
func result(ctx context.Context, c *cluster.Cluster, args ...string) (api.ImportResult, error) {
	var last struct {
		Kind  string           `json:"kind"`
		Value api.ImportResult `json:"value"`
	}
	cmd := operatorCommand(ctx, c, append(args, "--json")...)
	out, err := cmd.Output()
	if err != nil {
		return last.Value, fmt.Errorf("gantry %s: %w: %s", strings.Join(args, " "), err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		return last.Value, err
	}
	if last.Kind != "result" {
		return last.Value, fmt.Errorf("the last line is of kind %q", last.Kind)
	}
	return last.Value, nil
}

// deltas measures what changes little: a second import, and sparse images; on the
// disk as it is, and on an xfs of its own, where files can share blocks.
func (b *bench) deltas(ctx context.Context) error {
	if err := b.deltasOn(ctx, ""); err != nil {
		return err
	}
	if os.Geteuid() != 0 || !installed("mkfs.xfs") {
		fmt.Print("\n### Second import, blocks shared: left out, it needs root and mkfs.xfs\n")
		return nil
	}
	return b.deltasOn(ctx, "xfs")
}

func (b *bench) deltasOn(ctx context.Context, fs string) error {
	c, err := b.cluster(ctx, cluster.Options{Front: b.anyFront(), Send: "front"})
	if err != nil {
		return err
	}
	defer c.Close()
	if fs != "" {
		d := disk{filepath.Join(b.dir, "delta."+fs), filepath.Join(c.NodeDir("beta"), cluster.Resource), "mkfs.xfs -q", fmt.Sprintf("%dM", 4*b.size+1024)}
		if err := d.renew(ctx, cluster.UID); err != nil {
			return err
		}
		defer d.close()
	}
	folder := filepath.Join(c.NodeDir("alpha"), cluster.Resource)
	if err := b.deltaFiles(ctx, folder); err != nil {
		return err
	}
	r, err := newRivals(ctx, b.dir, filepath.Join(folder, oldFile))
	if err != nil {
		return err
	}
	defer r.close()
	s, err := newRsyncs(ctx, r, folder)
	if err != nil {
		return err
	}
	if err := b.again(ctx, c, s, fs); err != nil || fs != "" {
		return err
	}
	return b.sparse(ctx, c, s)
}

// anyFront prefers nginx, whose ratios are the harder ones.
func (b *bench) anyFront() front.Kind {
	for _, kind := range []front.Kind{front.Nginx, front.Lighttpd} {
		if installed(string(kind)) {
			return kind
		}
	}
	return front.EmbeddedServer
}

// deltaFiles makes the files in alpha's resource, whose servers only read it.
func (b *bench) deltaFiles(ctx context.Context, folder string) error {
	path := func(name string) string { return filepath.Join(folder, name) }
	if err := fill(path(oldFile), b.size<<20); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range []struct {
		name        string
		every, unit int64 // one unit of so many is changed by 4 KiB
	}{{percentFile, 100, transfer.PieceSize}, {scatteredFile, 1000, 4096}} {
		if err := shell(ctx, fmt.Sprintf("cp %s %s", path(oldFile), path(f.name))); err != nil {
			return err
		}
		if err := scribble(r, path(f.name), b.size<<20, f.every, f.unit); err != nil {
			return err
		}
	}
	sparse, err := os.Create(path(sparseFile))
	if err != nil {
		return err
	}
	defer sparse.Close()
	buf := make([]byte, 4<<20)
	random := rand.NewChaCha8([32]byte{'s'})
	for off := int64(0); off < 4*b.size<<20; off += 16 * int64(len(buf)) {
		random.Read(buf)
		if _, err := sparse.WriteAt(buf, off); err != nil {
			return err
		}
	}
	if err := sparse.Truncate(4 * b.size << 20); err != nil {
		return err
	}
	return shell(ctx, "chmod 644 "+folder+"/*; sync")
}

// scribble changes 4 KiB in one of every units of the file.
func scribble(r *rand.Rand, path string, size, every, unit int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var block [4096]byte
	for range max(1, size/unit/every) {
		for i := range block {
			block[i] = byte(r.Uint32())
		}
		at := r.Int64N(size/unit)*unit + r.Int64N(unit/4096)*4096
		if _, err := f.WriteAt(block[:], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// again measures the second import of a file that changed.
func (b *bench) again(ctx context.Context, c *cluster.Cluster, s *rsyncs, fs string) error {
	target := c.Path("beta", "copy.img")
	bytes := map[string]api.ImportResult{}
	ours := func(name, source string, old, trust bool, flags ...string) *contender {
		args := append([]string{"copy", "--new", "alpha:disks/" + source, "beta:disks/copy.img"}, flags...)
		return &contender{name: "gantry copy, " + name, target: target,
			prepare: func(ctx context.Context) error {
				os.Remove(target)
				if !old {
					return nil
				}
				if trust { // the source's new state was hashed before, and nothing of it has changed since
					if err := operator(ctx, c, "digest", "alpha:disks/"+source); err != nil {
						return err
					}
				}
				if err := operator(ctx, c, "copy", "--new", "--quiet", "alpha:disks/"+oldFile, "beta:disks/copy.img"); err != nil {
					return err
				}
				return warm(ctx, target)
			},
			run: func(ctx context.Context) (err error) {
				bytes[name], err = result(ctx, c, args...)
				return err
			}}
	}
	all := []*contender{
		ours("first import", oldFile, false, false),
		ours("1% of the pieces changed", percentFile, true, false, "--replace"),
		ours("1% of the pieces changed, --trust-mtime", percentFile, true, true, "--replace", "--trust-mtime"),
		ours("0.1% of the 4 KiB blocks changed", scatteredFile, true, false, "--replace"),
	}
	if s.daemon > 0 {
		old, to := filepath.Join(s.folder, oldFile), c.Path("beta", "rsync.img")
		for _, f := range [][2]string{{"1% of the pieces changed", percentFile}, {"0.1% of the 4 KiB blocks changed", scatteredFile}} {
			r := s.contender("rsync daemon, --fsync, + b3sum, "+f[0], to, "rsync -t --no-whole-file --fsync %s %s && b3sum %[2]s", s.url(f[1]), to)
			r.prepare = func(ctx context.Context) error {
				return shell(ctx, fmt.Sprintf("cp %s %s; touch -d @1 %[2]s; cat %[2]s > /dev/null", old, to))
			}
			all = append(all, r)
		}
	}
	if fs == "" {
		all = append(all, floors(filepath.Join(s.folder, oldFile), c.Path("beta", "floor.img"))...)
	}
	all, err := b.race(ctx, all, b.rounds)
	if err != nil {
		return err
	}
	os.Remove(c.Path("beta", "rsync.img"))
	where := "blocks cannot be shared (ext4)"
	if fs != "" {
		where = "blocks are shared (" + fs + " on a loop device)"
	}
	report(fmt.Sprintf("Second import of %d MiB, %s sends, old copy in memory, %s", b.size, b.anyFront(), where), all, b.size)
	fmt.Printf("\n| import | bytes over the wire | share | fetched | copied from the old file | reflinked | carried |\n| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, c := range all {
		name := strings.TrimPrefix(c.name, "gantry copy, ")
		if r, ok := bytes[name]; ok {
			fmt.Printf("| %s | %d | %.2f%% | %d | %d | %d | %d |\n", name, r.Wire, 100*float64(r.Wire)/float64(r.Size), r.Bytes.Fetched, r.Bytes.Copied, r.Bytes.Reflinked, r.Bytes.Carried)
		}
	}
	return nil
}

// floors are what the disk asks for a second file of the same bytes, with nothing
// proved or sent: no import that has to write all of them again can be faster.
func floors(from, to string) (all []*contender) {
	for _, how := range [][2]string{
		{"cp --reflink=never, + sync", "cp --reflink=never %s %s && sync -f %[2]s"},
		{"dd past the page cache, conv=fsync", "dd if=%s of=%s bs=4M oflag=direct conv=fsync status=none"},
	} {
		line := fmt.Sprintf(how[1], from, to)
		all = append(all, &contender{name: "floor: " + how[0], target: to, run: func(ctx context.Context) error { return shell(ctx, line) }})
	}
	return all
}

// warm reads a file, so that every contender finds its old copy in memory: a
// copy that gantry made lies on the disk alone.
func warm(ctx context.Context, path string) error { return shell(ctx, "cat "+path+" > /dev/null") }

// sparse measures an image of which one part in 16 is data.
func (b *bench) sparse(ctx context.Context, c *cluster.Cluster, s *rsyncs) error {
	target := c.Path("beta", "sparse.img")
	cold := filepath.Join("node", "dir", "zero")
	ours := func(name string, forget bool) *contender {
		return &contender{name: "gantry copy, " + name, target: target,
			prepare: func(context.Context) error {
				os.Remove(target)
				if !forget {
					return nil
				}
				for _, node := range []string{"alpha", "beta"} {
					if err := os.RemoveAll(filepath.Join(c.NodeDir(node), cold)); err != nil {
						return err
					}
				}
				return nil
			},
			run: func(ctx context.Context) error {
				return operator(ctx, c, "copy", "--new", "--quiet", "alpha:disks/"+sparseFile, "beta:disks/sparse.img")
			}}
	}
	all := []*contender{ours("values of zero pieces known", false)}
	if s.daemon > 0 {
		to := filepath.Join(s.dir, "sparse.img")
		all = append(all, s.contender("rsync daemon, -S, --fsync, + b3sum", to, "rsync -tS --fsync %s %s && b3sum %[2]s", s.url(sparseFile), to))
	}
	all, err := b.race(ctx, all, min(b.rounds, 3))
	if err != nil {
		return err
	}
	report(fmt.Sprintf("Sparse image of %d MiB with %d MiB of data", 4*b.size, b.size/4), all, 4*b.size)
	return nil
}

// operatorCommand is gantry as the operator of c.
func operatorCommand(ctx context.Context, c *cluster.Cluster, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Program(), append([]string{"--home", c.Home()}, args...)...)
	cmd.Dir, cmd.SysProcAttr = c.Home(), c.OperatorAttr()
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+c.State())
	return cmd
}
