package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"gantry/api"
	"gantry/internal/serve"
	"gantry/transfer"

	"github.com/gorilla/mux"
)

// tag makes the strong ETag of the export's content: whatever would let two
// contents differ is in it.
func (e *exporter) tag(task string) (string, error) {
	if _, tree := e.x.(*transfer.TreeExport); tree { // its content is what the task's manifest says
		sum := sha256.Sum256([]byte(task + " tree"))
		return `"` + hex.EncodeToString(sum[:16]) + `"`, nil
	}
	if e.root == nil { // it is held open, or runs once
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %s", task, e.resource.Kind))
		return `"` + hex.EncodeToString(sum[:16]) + `"`, nil
	}
	info, err := e.root.Lstat(e.op.Path)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.New("the file system gives no inode")
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d %d %d", task, st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()))
	return `"` + hex.EncodeToString(sum[:16]) + `"`, nil
}

func (n *Node) readableExport(r *http.Request) (*task, error) {
	return n.readable(mux.Vars(r)["id"], serve.Caller(r.Context()), r.Header.Get(api.TicketHeader))
}

func (n *Node) serveContent(w http.ResponseWriter, r *http.Request) error {
	t, err := n.readableExport(r)
	if err != nil {
		return err
	}
	return n.useExport(r.Context(), t, func(ctx context.Context, e *exporter) error {
		if err := e.x.Check(); err != nil {
			return err
		}
		ifRange := r.Header.Get("If-Range")
		want := strings.Join(r.Header.Values("Range"), ",")
		if ifRange != "" && ifRange != e.etag {
			want = "" // another content: the whole of this one (RFC 9110, 13.1.5)
		}
		s, err := parseRange(want, e.x.Size())
		if err != nil {
			if size := e.x.Size(); size >= 0 {
				w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
			}
			return err
		}
		e.header(w.Header())
		if r.Method == http.MethodHead {
			w.WriteHeader(s.header(w.Header(), e.x.Size()))
			return nil
		}
		if name, value, ok := n.bySend(e, s, ifRange); ok {
			w.Header().Set(name, value)
			w.WriteHeader(http.StatusOK)
			return nil
		}
		return e.copy(ctx, w, t, s)
	})
}

func (e *exporter) header(h http.Header) {
	h.Set("Content-Type", api.TypeBytes)
	h.Set("ETag", e.etag)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	// No "X-Accel-Buffering: no": unbuffered, nginx takes the responder's death
	// for the end of the reply, and the reader waits for the rest.
	if e.root == nil {
		return
	}
	if info, err := e.root.Lstat(cmp.Or(e.op.Path, ".")); err == nil {
		h.Set("Last-Modified", info.ModTime().UTC().Format(http.TimeFormat))
	}
}

// bySend names the header with which the front is asked to send the file
// itself. The front reads the client's Range header, as parseRange did: so the
// part is the same, and it is bounded here. Whole files and greater parts,
// requests with If-Range (nginx would compare an ETag of its own) and files
// behind a symbolic link (fronts follow none) are streamed.
func (n *Node) bySend(e *exporter, s span, ifRange string) (name, value string, ok bool) {
	if e.resource.Send != "front" || e.limits.Rate() > 0 || ifRange != "" || s.length > api.MaxFrontSend || e.behindLink(n.cfg.Front.Kind) {
		return "", "", false
	}
	switch n.cfg.Front.Kind {
	case "lighttpd":
		return "X-Sendfile", escape(path.Join(e.resource.Path, e.op.Path)), true
	case "nginx":
		return "X-Accel-Redirect", sendPrefix + escape(e.resource.Name+"/"+e.op.Path), true
	}
	return "", "", false // the embedded front always streams
}

// behindLink says whether the front would refuse a part of the path: nginx looks
// at what is below the resource, lighttpd at all of it.
func (e *exporter) behindLink(kind string) bool {
	for dir := path.Dir(e.op.Path); dir != "."; dir = path.Dir(dir) {
		if info, err := e.root.Lstat(dir); err != nil || !info.IsDir() {
			return true
		}
	}
	if kind != "lighttpd" {
		return false
	}
	real, err := filepath.EvalSymlinks(e.resource.Path)
	return err != nil || real != filepath.Clean(e.resource.Path)
}

// sendPrefix is front.SendPrefix: the internal location of nginx.
const sendPrefix = "/-/send/"

// escape percent-encodes each part of a path; lighttpd (since 1.4.56) and nginx
// decode both headers once.
func escape(p string) string {
	parts := strings.Split(p, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}

// A copy of content is written in pieces of four FastCGI records of the
// greatest length that keeps them aligned to 8 bytes, with one write each.
const copyBuffer = 4 * 65528

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// copy streams the part. Once the header is out an error can only break the
// reply off, which the declared length makes visible.
func (e *exporter) copy(ctx context.Context, w http.ResponseWriter, t *task, s span) error {
	content, err := e.x.Content(ctx, s.off, s.length)
	if err != nil {
		return err
	}
	defer content.Close()
	w.WriteHeader(s.header(w.Header(), e.x.Size()))
	out := e.limited(ctx, w, w)
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := content.Read(buf[:])
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return fmt.Errorf("sending content: %w", cmpCause(ctx, err))
			}
			e.sent.Add(int64(n))
			t.touch()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return cmpCause(ctx, err)
		}
	}
}

// cmpCause prefers the reason why ctx ended to what came of it.
func cmpCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// defaultWindow is the pieces of a manifest window when the caller names none.
const defaultWindow = 64

func (n *Node) serveManifest(w http.ResponseWriter, r *http.Request) error {
	t, err := n.readableExport(r)
	if err != nil {
		return err
	}
	from, err := number(r, "from", 0, 0, maxNumber)
	if err != nil {
		return err
	}
	count, err := number(r, "n", defaultWindow, 1, api.MaxWindow)
	if err != nil {
		return err
	}
	done, err := number(r, "done", 0, 0, maxNumber)
	if err != nil {
		return err
	}
	pieces, how, err := again(r)
	if err != nil {
		return err
	}
	return n.useExport(r.Context(), t, func(ctx context.Context, e *exporter) error {
		out := &flushed{w: w, rc: http.NewResponseController(w), moved: t.touch}
		switch how {
		case "rehash":
			return e.x.Rehash(ctx, pieces[0], out)
		case "sub":
			return e.sub(ctx, pieces, out)
		}
		if tree, ok := e.x.(*transfer.TreeExport); ok {
			return tree.WindowHaving(ctx, from, count, r.URL.Query().Get("have"), out)
		}
		return e.x.Window(ctx, from, count, done, out)
	})
}

// flushed sends every line at once, and its header with the first: an error
// before it can still be answered with problem JSON.
type flushed struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	moved func()
	begun bool
}

func (f *flushed) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		h := f.w.Header()
		h.Set("Content-Type", api.TypeFeed)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no")
		h.Set("X-Content-Type-Options", "nosniff")
	}
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	f.moved()
	return n, f.rc.Flush()
}

func (n *Node) serveFinish(w http.ResponseWriter, r *http.Request) error {
	var req api.Finish
	if err := serve.ReadJSON(w, r, &req); err != nil {
		return err
	}
	t, err := n.readableExport(r)
	if err != nil {
		return err
	}
	if !isDigest(req.Digest) {
		return api.BadRequest.Err("digest: b3: and 64 lower-case hex digits are needed")
	}
	result, err := t.finished(r.Context(), req.Digest)
	if err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, result)
}
