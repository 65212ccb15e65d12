package node

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/internal/serve"
	"gantry/transfer"

	"github.com/gorilla/mux"
	"golang.org/x/sys/unix"
)

func now() time.Time { return time.Now() }

func (n *Node) serveStatus(w http.ResponseWriter, r *http.Request) error {
	caller := serve.Caller(r.Context())
	n.mu.Lock()
	running, draining := n.running, n.draining
	n.mu.Unlock()
	s := api.Status{
		Node: n.cfg.Name, Cluster: n.gate.Identity.ID.Cluster, Version: n.version, Time: now().UTC(), DirID: n.folder.id,
		Isolated: n.isolated(), Draining: draining, Tasks: running, MaxTasks: n.cfg.Limits.Tasks,
		CRL: n.crlInfo(), Caller: caller.ID.String(), May: n.gate.Policy.Rights(caller),
	}
	for _, warning := range []string{n.gate.CRL.Warn(now()), n.gate.Identity.Warn(now())} {
		if warning != "" {
			s.Warnings = append(s.Warnings, warning)
		}
	}
	if !s.Isolated {
		s.Warnings = append(s.Warnings, "not isolated: front and responder share a uid, so the front could read the responder's key")
	}
	return serve.JSON(w, http.StatusOK, s)
}

// isolated says that the front runs under other uids than the responder.
func (n *Node) isolated() bool {
	return !slices.Contains(n.cfg.Front.UIDs, uint32(os.Geteuid()))
}

func (n *Node) crlInfo() api.CRL {
	crl := n.gate.CRL.Current()
	if crl == nil {
		return api.CRL{Stale: true}
	}
	return api.CRL{
		Number: crl.Number.Int64(), Updated: crl.ThisUpdate, Expires: crl.NextUpdate, Stale: now().After(crl.NextUpdate),
	}
}

func (n *Node) serveResources(w http.ResponseWriter, r *http.Request) error {
	caller := serve.Caller(r.Context())
	reply := api.Resources{Resources: []api.Resource{}}
	for _, name := range n.visible(caller) {
		res, err := n.resource(name)
		if err != nil {
			return err
		}
		out := api.Resource{Name: name, Kind: res.Kind, Writable: res.Writable, May: n.gate.Policy.RightsOn(caller, name)}
		var st unix.Statfs_t
		switch {
		case rooted(res) && unix.Statfs(res.Path, &st) == nil:
			out.Free, out.Size = int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
		case res.Kind == config.KindDevice:
			if size, err := transfer.DeviceSize(res.Path); err == nil {
				out.Size = size
			}
		}
		reply.Resources = append(reply.Resources, out)
	}
	return serve.JSON(w, http.StatusOK, reply)
}

// filesPage is the entries of a page of GET files when the caller names no size.
const filesPage = 500

func (n *Node) serveFiles(w http.ResponseWriter, r *http.Request) error {
	res, err := n.resource(mux.Vars(r)["resource"])
	if err != nil {
		return err
	}
	size, err := number(r, "n", filesPage, 1, api.MaxPageSize)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	where := cmp.Or(q.Get("path"), ".")
	if where != "." {
		if err := transfer.CheckName(where); err != nil {
			return err
		}
	}
	dir, err := root(res)
	if err != nil {
		return err
	}
	defer dir.Close()
	page, err := list(dir, where, q.Get("cursor"), int(size))
	if err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, page)
}

// list is one page of a folder, in name order, after cursor. It keeps a few
// pages of names in memory, however large the folder is.
func list(dir *os.Root, where, cursor string, size int) (api.Files, error) {
	f, err := dir.OpenFile(where, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return api.Files{}, err
	}
	defer f.Close()
	var names []string
	for {
		batch, err := f.ReadDir(api.MaxPageSize)
		for _, e := range batch {
			if e.Name() > cursor && !(where == "." && e.Name() == transfer.StageDir) {
				names = append(names, e.Name())
			}
		}
		if len(names) > 4*api.MaxPageSize || err != nil {
			slices.Sort(names)
			names = names[:min(len(names), size+1)]
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return api.Files{}, fmt.Errorf("reading a folder: %w", err)
		}
	}
	page := api.Files{Files: []api.FileInfo{}}
	for i, name := range names {
		if i == size {
			page.Next = names[i-1]
			break
		}
		info, err := dir.Lstat(path.Join(where, name))
		if os.IsNotExist(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return api.Files{}, err
		}
		page.Files = append(page.Files, api.FileInfo{
			Name: name, Type: fileType(info.Mode()), Size: info.Size(), MTime: info.ModTime().UTC(), Mode: fmt.Sprintf("%04o", info.Mode().Perm()),
		})
	}
	return page, nil
}

func fileType(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "dir"
	case m&fs.ModeSymlink != 0:
		return "symlink"
	}
	return "other"
}
