package node

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"gantry/api"
	"gantry/config"
	"gantry/internal/serve"
	"gantry/transfer"

	"github.com/gorilla/mux"
	"golang.org/x/sys/unix"
)

// serveCheck tries a resource as the responder would use it. One try runs at a
// time: its files have fixed names.
func (n *Node) serveCheck(w http.ResponseWriter, r *http.Request) error {
	res, err := n.resource(mux.Vars(r)["resource"])
	if err != nil {
		return err
	}
	name := r.URL.Query().Get("path")
	if name != "" {
		if err := transfer.CheckName(name); err != nil {
			return err
		}
		if !rooted(res) {
			return api.BadPath.Err("resource " + res.Name + " is a " + res.Kind + " and has no paths; leave the path out")
		}
	}
	me, err := myself()
	if err != nil {
		return err
	}
	n.checking.Lock()
	defer n.checking.Unlock()
	c := checker{node: n, res: res, me: me}
	c.run(name)
	reply := api.Check{
		Resource: res.Name, Kind: res.Kind, Writable: res.Writable, UID: me.uid, User: me.name, Groups: me.gids,
		Capabilities: capabilities(), Items: c.items,
	}
	reply.OK = !slices.ContainsFunc(c.items, func(i api.CheckItem) bool { return i.State == api.CheckRefused })
	return serve.JSON(w, http.StatusOK, reply)
}

// A checker tries one resource.
type checker struct {
	node  *Node
	res   config.Resource
	me    person
	items []api.CheckItem
}

func (c *checker) add(items ...api.CheckItem) { c.items = append(c.items, items...) }

func (c *checker) note(name, state, format string, args ...any) {
	c.add(api.CheckItem{Name: name, State: state, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) run(name string) {
	c.hooks()
	switch c.res.Kind {
	case config.KindDevice:
		c.device()
	case config.KindCommand:
		c.command()
	default:
		c.folder(name)
	}
}

// hooks says whether the programs of the resource can be run.
func (c *checker) hooks() {
	if c.res.Freeze == nil || c.res.Freeze.Reflink {
		return
	}
	c.program("snapshot hook", c.res.Freeze.Snapshot[0])
	c.program("release hook", c.res.Freeze.Release[0])
}

func (c *checker) program(name, path string) {
	c.add(c.me.refused(name, walk(path, permSearch, kernel), path+" can be run"))
}

func (c *checker) folder(name string) {
	want := uint32(permRead | permSearch)
	if c.writes() {
		want |= permWrite
	}
	no := walk(c.res.Path, want, kernel)
	c.add(c.me.refused("folder", no, c.res.Path+" can be entered, "+permText(want&^permSearch)))
	dir, err := root(c.res)
	if err != nil {
		if no == nil {
			c.note("open", api.CheckRefused, "%v", err)
		}
		return
	}
	defer dir.Close()
	if no == nil {
		c.list(dir)
		c.room()
	}
	if name != "" {
		c.path(dir, name)
	}
	if no == nil {
		c.stages(dir, name)
	}
	c.front(name)
}

// writes says whether the node ever writes into the resource.
func (c *checker) writes() bool {
	return c.res.Writable || c.res.Freeze != nil && c.res.Freeze.Reflink
}

func (c *checker) list(dir *os.Root) {
	f, err := dir.Open(".")
	if err == nil {
		defer f.Close()
		if _, err = f.ReadDir(1); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		c.note("list", api.CheckRefused, "%v", bare(err))
		return
	}
	c.note("list", api.CheckOK, "entries can be read")
}

func (c *checker) room() {
	var st unix.Statfs_t
	if err := unix.Statfs(c.res.Path, &st); err != nil {
		c.note("room", api.CheckRefused, "%v", err)
		return
	}
	state := api.CheckOK
	if c.res.Writable && st.Bavail == 0 {
		state = api.CheckRefused
	}
	c.note("room", state, "%d of %d MiB are free, %d of %d entries", st.Bavail*uint64(st.Frsize)>>20, st.Blocks*uint64(st.Frsize)>>20, st.Ffree, st.Files)
}

// path tries the file or folder that was named, or the folder where it would be.
func (c *checker) path(dir *os.Root, name string) {
	info, err := dir.Lstat(name)
	full := filepath.Join(c.res.Path, name)
	parent := permSearch | permRead
	if c.res.Writable {
		parent |= permWrite
		c.add(c.me.refused("its folder", walk(filepath.Dir(full), uint32(parent), kernel), "entries can be made in "+filepath.Dir(full)))
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.note("path", api.CheckNote, "%s is not there: it can be a target, not a source", full)
	case err != nil:
		c.add(c.me.refused("path", walk(full, permRead, kernel), ""))
	case info.IsDir():
		c.add(c.me.refused("path", walk(full, permRead|permSearch, kernel), "the folder can be read"))
	case info.Mode().IsRegular():
		c.read(dir, name, full)
	default:
		c.note("path", api.CheckNote, "%s is neither file nor folder", full)
	}
}

func (c *checker) read(dir *os.Root, name, full string) {
	f, err := transfer.OpenFile(dir, name)
	if err == nil {
		defer f.Close()
		if _, err = f.ReadAt(make([]byte, 1), 0); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err == nil {
		c.note("path", api.CheckOK, "the file can be read")
		return
	}
	no := walk(full, permRead, kernel)
	if no == nil {
		no = &refusal{path: full, err: bare(err)}
	}
	c.add(c.me.refused("path", no, ""))
}

// stages tries what writing needs, in the folder that imports write to.
func (c *checker) stages(dir *os.Root, name string) {
	if !c.writes() {
		c.note("write", api.CheckNote, "node.toml does not allow imports (writable = false), so no write was tried")
		return
	}
	stages, err := transfer.OpenStages(dir)
	if err != nil {
		c.note("stage", api.CheckRefused, "%v", err)
		return
	}
	defer stages.Close()
	c.add(abilities(stages)...)
	if name == "" {
		return
	}
	if err := sameFileSystem(stages, filepath.Dir(filepath.Join(c.res.Path, name))); err != nil {
		c.note("rename to the target", api.CheckRefused, "%v", err)
		return
	}
	c.note("rename to the target", api.CheckOK, "the stage is on the target's file system")
}

// command says whether the program can be run, without running it.
func (c *checker) command() {
	cmd := c.res.Command
	c.program("program", cmd.Argv[0])
	if cmd.Dir != "" && cmd.Dir != "/" {
		c.add(c.me.refused("dir", walk(cmd.Dir, permSearch, kernel), cmd.Dir+" can be entered"))
	}
	c.note("run", api.CheckNote, "nothing was run: whether it succeeds is seen when a task runs it")
}

// front says whether the front's users can read what they are to send. The
// responder cannot try that: it computes it from modes and lists.
func (c *checker) front(name string) {
	if c.res.Send != config.SendFront {
		return
	}
	path := filepath.Join(c.res.Path, name)
	var st unix.Stat_t
	want := uint32(permRead)
	if err := unix.Stat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		want = permSearch
	}
	for _, uid := range c.node.cfg.Front.UIDs {
		p := personOf(uid)
		item := p.refused(fmt.Sprintf("front, uid %d", uid), walk(path, want, p.bits), "the front may read it, by modes and access control lists")
		if p.name == "" {
			item.Text += " (the uid has no account here: it is taken to be in no group)"
		}
		c.add(item)
	}
	c.note("front", api.CheckNote, "files that imports make have mode %04o: the front reads them only if that, or a default access control list, lets it", c.res.Mode)
}

// device opens it as an export, or an import, would.
func (c *checker) device() {
	want := uint32(permRead)
	flags := unix.O_RDONLY
	if c.res.Writable {
		want, flags = permRead|permWrite, unix.O_RDWR
	}
	no := walk(c.res.Path, want, kernel)
	c.add(c.me.refused("device", no, c.res.Path+" can be opened, "+permText(want)))
	if no != nil {
		return
	}
	fd, err := unix.Open(c.res.Path, flags|unix.O_EXCL|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		c.note("exclusive", api.CheckRefused, "it is in use (mounted, or part of something): no import, and an export only if it is declared live")
		return
	}
	if err != nil {
		c.note("open", api.CheckRefused, "%v", err)
		return
	}
	defer unix.Close(fd)
	size, err := unix.Seek(fd, 0, io.SeekEnd)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	switch {
	case err != nil:
		c.note("size", api.CheckRefused, "%v", err)
	case st.Mode&unix.S_IFMT != unix.S_IFBLK:
		c.note("device", api.CheckRefused, "%s is not a block device", c.res.Path)
	default:
		c.note("exclusive", api.CheckOK, "nobody else uses it; it has %d bytes", size)
	}
}
