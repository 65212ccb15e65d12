package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"gantry/front"
	"gantry/internal/cluster"

	"golang.org/x/sync/errgroup"
)

// The tree of many small files.
const (
	treeFiles    = 100_000
	treeFileSize = 4096
	treeDirs     = 1000
	// treeDisk is the size of the file systems that trees are written to.
	treeDisk = "6G"
)

// A disk is an ext4 of its own in a file: creating files in one from which a
// tree was removed minutes before crawls, so each run gets a new one.
type disk struct{ image, mount, mkfs, size string }

// ext4 is a disk for a tree.
func ext4(image, mount string) disk { return disk{image, mount, "mkfs.ext4 -q -m 0", treeDisk} }

// renew makes the file system anew and mounts it; whoever used the last one may
// take a moment to let go of it.
func (d disk) renew(ctx context.Context, uid int) error {
	return shell(ctx, fmt.Sprintf("for i in $(seq 50); do ! mountpoint -q %[2]s || umount %[2]s || { sleep 0.2; continue; }; break; done; if mountpoint -q %[2]s; then echo in use; exit 1; fi; rm -f %[1]s; truncate -s %[3]s %[1]s; %[5]s %[1]s; mkdir -p %[2]s; mount -o loop %[1]s %[2]s; rm -rf %[2]s/lost+found; chown %[4]d:%[4]d %[2]s; sync",
		d.image, d.mount, d.size, uid, d.mkfs))
}

func (d disk) close() { _ = shell(context.Background(), "umount "+d.mount+"; rm -f "+d.image) }

// treeOptions gives alpha the tree resource source, and beta one of its own.
func treeOptions(kind front.Kind, source string) cluster.Options {
	return cluster.Options{Front: kind, Dirs: []string{"trees"}, Extra: func(node, dir string) string {
		path := filepath.Join(dir, "trees")
		if node == "alpha" {
			path = source
		}
		return fmt.Sprintf("\n[[resource]]\nname = \"trees\"\nkind = \"tree\"\npath = %q\nwritable = true\n", path)
	}}
}

// trees measures trees of many small files, and a real one.
func (b *bench) trees(ctx context.Context) error {
	if os.Geteuid() != 0 || !installed("mkfs.ext4", "rsync") {
		fmt.Print("\n### Trees: left out, they need root, mkfs.ext4 and rsync\n")
		return nil
	}
	source := filepath.Join(b.dir, "trees")
	if err := manyFiles(filepath.Join(source, "small")); err != nil {
		return err
	}
	if err := shell(ctx, fmt.Sprintf("cp -r $(go env GOROOT) %[1]s/go; chmod -R a+rX %[1]s", source)); err != nil {
		return err
	}
	r, err := newRivals(ctx, b.dir, filepath.Join(source, "small", "000", "000"))
	if err != nil {
		return err
	}
	defer r.close()
	s, err := newRsyncs(ctx, r, source)
	if err != nil {
		return err
	}
	var clusters []*cluster.Cluster
	var kinds []front.Kind
	for _, kind := range []front.Kind{front.Lighttpd, front.Nginx} {
		if !installed(string(kind)) {
			continue
		}
		c, err := b.cluster(ctx, treeOptions(kind, source))
		if err != nil {
			return err
		}
		defer c.Close()
		clusters, kinds = append(clusters, c), append(kinds, kind)
	}
	for _, t := range []struct{ name, title string }{
		{"small", fmt.Sprintf("Tree of %d files of %d bytes in %d folders", treeFiles, treeFileSize, treeDirs)},
		{"go", "The Go distribution's tree"},
	} {
		if err := b.tree(ctx, t.name, t.title, clusters, kinds, s); err != nil {
			return err
		}
	}
	return nil
}

// tree measures one tree: to a new file system, and once more when all is there.
func (b *bench) tree(ctx context.Context, name, title string, clusters []*cluster.Cluster, kinds []front.Kind, s *rsyncs) error {
	var fresh, unchanged []*contender
	for i, c := range clusters {
		d := ext4(filepath.Join(b.dir, fmt.Sprintf("tree%d.ext4", i)), filepath.Join(c.NodeDir("beta"), "trees"))
		defer d.close()
		run := func(ctx context.Context) error {
			return operator(ctx, c, "copy", "--new", "--quiet", "--update", "alpha:trees/"+name, "beta:trees/"+name)
		}
		fresh = append(fresh, &contender{name: fmt.Sprintf("gantry copy, %s", kinds[i]), run: run,
			prepare: func(ctx context.Context) error { return d.renew(ctx, cluster.UID) }})
		unchanged = append(unchanged, &contender{name: fmt.Sprintf("gantry copy, %s", kinds[i]), run: run,
			prepare: func(context.Context) error { return nil }})
	}
	d := ext4(filepath.Join(b.dir, "rsync.ext4"), filepath.Join(s.dir, "tree"))
	defer d.close()
	for _, rival := range []struct{ name, format string }{
		{"rsync -a daemon, && sync -f", "rsync -a %s/ %s/%s && sync -f %[2]s"},
		{"rsync -a daemon", "rsync -a %s/ %s/%s"},
	} {
		r := s.contender(rival.name, "", rival.format, s.url(name), d.mount, name)
		r.prepare = func(ctx context.Context) error { return d.renew(ctx, 0) }
		fresh = append(fresh, r)
		again := s.contender(rival.name, "", rival.format, s.url(name), d.mount, name)
		again.prepare = func(context.Context) error { return nil }
		unchanged = append(unchanged, again)
	}
	floor := ext4(filepath.Join(b.dir, "floor.ext4"), filepath.Join(s.dir, "floor"))
	defer floor.close()
	fresh = append(fresh, &contender{name: fmt.Sprintf("floor: each file read, made, written and dated, %d at a time, && sync -f", runtime.NumCPU()),
		prepare: func(ctx context.Context) error { return floor.renew(ctx, 0) },
		run: func(ctx context.Context) error {
			if err := copyPlain(ctx, filepath.Join(s.folder, name), floor.mount); err != nil {
				return err
			}
			return shell(ctx, "sync -f "+floor.mount)
		}})
	fresh, err := b.race(ctx, fresh, b.rounds)
	if err != nil {
		return err
	}
	times(title+", to a new ext4", fresh)
	unchanged, err = b.race(ctx, unchanged, b.rounds)
	if err != nil {
		return err
	}
	times(title+", nothing changed since", unchanged)
	return nil
}

// copyPlain copies folders and regular files with as few system calls as there can
// be, and without a network, a digest or a second look: no tool takes less.
func copyPlain(ctx context.Context, from, to string) error {
	type file struct {
		path string
		info fs.FileInfo
	}
	files := make(chan file, 64)
	g, ctx := errgroup.WithContext(ctx)
	for range runtime.NumCPU() {
		g.Go(func() error {
			for f := range files {
				content, err := os.ReadFile(filepath.Join(from, f.path))
				if err != nil {
					return err
				}
				target := filepath.Join(to, f.path)
				if err := os.WriteFile(target, content, f.info.Mode().Perm()); err != nil {
					return err
				}
				if err := os.Chtimes(target, time.Time{}, f.info.ModTime()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(files)
		return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(from, path)
			switch {
			case err != nil:
				return err
			case d.IsDir():
				return os.MkdirAll(filepath.Join(to, rel), 0o755)
			case !d.Type().IsRegular():
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			select {
			case files <- file{rel, info}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return g.Wait()
}

// times prints a table without rates.
func times(title string, all []*contender) {
	if len(all) == 0 {
		return
	}
	fmt.Printf("\n### %s, medians of %d rounds\n\n| what | wall s | CPU s |\n| --- | --- | --- |\n", title, len(all[0].wall))
	for _, c := range all {
		fmt.Printf("| %s | %.2f | %.1f |\n", c.name, median(c.wall), median(c.cpu))
	}
	ratios(all)
}

// manyFiles makes the tree of small files, each with bytes of its own.
func manyFiles(dir string) error {
	for d := range treeDirs {
		sub := filepath.Join(dir, fmt.Sprintf("%03d", d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		for f := range treeFiles / treeDirs {
			text := strings.Repeat(fmt.Sprintf("%015d\n", d*treeFiles+f), treeFileSize/16)
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%03d", f)), []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
