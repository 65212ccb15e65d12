package job_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/config"
	"gantry/feedback"
	"gantry/job"
	"gantry/pki"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// fake is a node as far as a driver sees one: it keeps tasks and their feeds,
// and serves an export's bytes for real. A test says how its tasks go.
type fake struct {
	t     *testing.T
	name  string
	dirID string
	srv   *httptest.Server

	mu    sync.Mutex
	seen  []string
	tasks map[string]*fakeTask
	// start, if set, answers POST tasks instead of the node.
	start func(w http.ResponseWriter, r *http.Request) (handled bool)
	// before is called with each request, first.
	before func(r *http.Request)
	// run tells how a task of an operation goes; it returns its final line.
	run map[string]func(t *fakeTask) string

	// reach, if set, answers GET reach.
	reach http.HandlerFunc

	refuseFeeds bool // with a code that says nothing about the task

	file   *transfer.Export
	tamper func(path string, body []byte) []byte
}

type fakeTask struct {
	req       api.TaskRequest
	mu        sync.Mutex
	lines     []string // stored, without newline
	changed   chan struct{}
	cancelled chan struct{}
	once      sync.Once
	ended     bool
}

func newFake(t *testing.T, dir, name string, identity *pki.Identity) *fake {
	f := &fake{t: t, name: name, dirID: strings.Repeat(name[:1], 32), tasks: map[string]*fakeTask{}, run: map[string]func(*fakeTask) string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /node/v1/tasks", f.post)
	mux.HandleFunc("GET /node/v1/tasks/{id}", f.get)
	mux.HandleFunc("GET /node/v1/tasks/{id}/feed", f.feed)
	mux.HandleFunc("DELETE /node/v1/tasks/{id}", f.cancel)
	mux.HandleFunc("POST /node/v1/tasks/{id}/ack", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("POST /node/v1/tasks/{id}/finish", f.finish)
	mux.HandleFunc("GET /node/v1/reach/{node}", func(w http.ResponseWriter, r *http.Request) {
		if f.reach == nil {
			http.NotFound(w, r)
			return
		}
		f.reach(w, r)
	})
	mux.HandleFunc("GET /node/v1/tasks/{id}/missing", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		}
		w.Header().Set("Content-Type", api.TypeJSON)
		w.Write(api.Encode(api.Wants{Wants: []api.Want{}}))
	})
	mux.HandleFunc("GET /node/v1/tasks/{id}/manifest", f.manifest)
	mux.HandleFunc("GET /node/v1/tasks/{id}/content", f.content)
	mux.HandleFunc("GET /node/v1/tasks/{id}/pieces", f.pieces)
	f.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen = append(f.seen, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/node/v1/"))
		before := f.before
		f.mu.Unlock()
		if before != nil {
			before(r)
		}
		mux.ServeHTTP(w, r)
	}))
	f.srv.TLS = pki.ServerTLS(identity)
	f.srv.StartTLS()
	t.Cleanup(func() {
		f.srv.CloseClientConnections()
		f.mu.Lock()
		for _, task := range f.tasks {
			task.once.Do(func() { close(task.cancelled) })
		}
		f.mu.Unlock()
		f.srv.Close()
		if f.file != nil {
			f.file.Close()
		}
	})
	return f
}

// requests counts those that begin with prefix.
func (f *fake) requests(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.seen {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

func (f *fake) problem(w http.ResponseWriter, code *api.Code) {
	w.Header().Set("Content-Type", api.TypeProblem)
	w.WriteHeader(code.Status)
	w.Write(api.Encode(api.Problem{Type: "about:blank", Title: code.Name, Status: code.Status, Detail: "no", Code: code.Name, Retryable: code.Retryable, DirID: f.dirID}))
}

func (f *fake) post(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	start := f.start
	f.mu.Unlock()
	if start != nil && start(w, r) {
		return
	}
	var req api.TaskRequest
	if err := api.Decode(r.Body, &req); err != nil {
		f.t.Errorf("decoding a start: %v", err)
	}
	f.mu.Lock()
	task := f.tasks[req.ID]
	if task == nil {
		task = &fakeTask{req: req, changed: make(chan struct{}), cancelled: make(chan struct{})}
		f.tasks[req.ID] = task
		run := f.run[req.Op]
		f.mu.Unlock()
		task.add(`"kind":"state","state":"running"`)
		go func() {
			if final := run(task); final != "" {
				task.add(final)
			}
		}()
	} else {
		f.mu.Unlock()
	}
	f.stream(w, r, task, 0)
}

func (t *fakeTask) add(body string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf(`{"seq":%d,"t":"2026-11-20T21:31:04.120Z",%s}`, len(t.lines)+1, body))
	t.ended = strings.Contains(body, `"kind":"result"`) || strings.Contains(body, `"kind":"error"`)
	close(t.changed)
	t.changed = make(chan struct{})
}

func (f *fake) task(w http.ResponseWriter, r *http.Request) *fakeTask {
	f.mu.Lock()
	defer f.mu.Unlock()
	task := f.tasks[r.PathValue("id")]
	if task == nil {
		f.problem(w, api.UnknownTask)
	}
	return task
}

func (f *fake) feed(w http.ResponseWriter, r *http.Request) {
	if f.refuseFeeds {
		f.problem(w, api.Revoked)
		return
	}
	if task := f.task(w, r); task != nil {
		after, _ := strconv.Atoi(r.URL.Query().Get("after"))
		f.stream(w, r, task, after)
	}
}

func (f *fake) stream(w http.ResponseWriter, r *http.Request, t *fakeTask, after int) {
	w.Header().Set("Content-Type", api.TypeFeed)
	t.mu.Lock()
	fmt.Fprintf(w, `{"kind":"hello","v":1,"id":%q,"op":%q,"node":%q,"start":1,"interval":10,"last":%d,"dir_id":%q}`+"\n", t.req.ID, t.req.Op, f.name, len(t.lines), f.dirID)
	fmt.Fprintln(w, `{"kind":"progress","item":"a","phase":"fetch","done":5,"total":10,"unit":"bytes"}`)
	t.mu.Unlock()
	for {
		t.mu.Lock()
		for ; after < len(t.lines); after++ {
			io.WriteString(w, t.lines[after]+"\n")
		}
		ended, changed := t.ended, t.changed
		t.mu.Unlock()
		w.(http.Flusher).Flush()
		if ended {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (f *fake) get(w http.ResponseWriter, r *http.Request) {
	if task := f.task(w, r); task != nil {
		w.Header().Set("Content-Type", api.TypeJSON)
		w.Write(api.Encode(api.TaskInfo{ID: task.req.ID, Op: task.req.Op, State: api.StateRunning}))
	}
}

func (f *fake) cancel(w http.ResponseWriter, r *http.Request) {
	if task := f.task(w, r); task != nil {
		task.once.Do(func() { close(task.cancelled) })
		w.WriteHeader(http.StatusNoContent)
	}
}

func (f *fake) finish(w http.ResponseWriter, r *http.Request) {
	if task := f.task(w, r); task != nil {
		task.add(`"kind":"result","value":{"digest":"b3:0"}`)
		w.WriteHeader(http.StatusNoContent)
	}
}

// finishAll ends every export, as their readers do.
func (f *fake) finishAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tasks {
		t.add(`"kind":"result","value":{"digest":"b3:1"}`)
	}
}

func (f *fake) manifest(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	var b bytes.Buffer
	if q := r.URL.Query(); q.Has("sub") {
		var pieces []int64
		for piece := range strings.SplitSeq(q.Get("piece"), ",") {
			k, _ := strconv.ParseInt(piece, 10, 64)
			pieces = append(pieces, k)
		}
		if err := f.file.Sub(r.Context(), pieces, &b); err != nil {
			f.t.Errorf("sub: %v", err)
		}
	} else if err := f.file.Window(r.Context(), from, n, 0, &b); err != nil {
		f.t.Errorf("window: %v", err)
	}
	w.Header().Set("Content-Type", api.TypeFeed)
	w.Write(f.tampered("manifest", b.Bytes()))
}

func (f *fake) content(w http.ResponseWriter, r *http.Request) {
	var first, last int64
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	body, err := f.file.Content(r.Context(), first, last-first+1)
	if err != nil {
		f.t.Errorf("content: %v", err)
		return
	}
	defer body.Close()
	b, _ := io.ReadAll(body)
	w.Header().Set("Content-Type", api.TypeBytes)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, f.file.Size()))
	w.WriteHeader(http.StatusPartialContent)
	w.Write(f.tampered("content", b))
}

// pieces answers for ranges as frames.
func (f *fake) pieces(w http.ResponseWriter, r *http.Request) {
	var ranges []transfer.Range
	for one := range strings.SplitSeq(r.URL.Query().Get("r"), ",") {
		var at transfer.Range
		fmt.Sscanf(one, "%d-%d", &at.At, &at.Len)
		ranges = append(ranges, at)
	}
	w.Header().Set("Content-Type", api.TypeFrames)
	if err := transfer.WriteFrames(r.Context(), f.file, ranges, false, w); err != nil {
		f.t.Errorf("frames: %v", err)
	}
}

func (f *fake) tampered(what string, b []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tamper != nil {
		return f.tamper(what, b)
	}
	return b
}

// serve opens a file of size bytes, with a hole in it, as what alpha exports.
func (f *fake) serve(size int64) []byte {
	dir := f.t.TempDir()
	data := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(data)
	if size > 3*transfer.PieceSize {
		clear(data[transfer.PieceSize : 2*transfer.PieceSize])
	}
	require.NoError(f.t, os.WriteFile(filepath.Join(dir, "a"), data, 0o600))
	root, err := os.OpenRoot(dir)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { root.Close() })
	require.NoError(f.t, os.Mkdir(filepath.Join(dir, "work"), 0o700))
	f.file, err = transfer.OpenExport(root, "a", filepath.Join(dir, "work"), transfer.Silent{})
	require.NoError(f.t, err)
	return data
}

// world is two fake nodes, a store, and a driver.
type world struct {
	t           *testing.T
	alpha, beta *fake
	dir         string
	store       *job.Store
	driver      *job.Driver
	out         bytes.Buffer
	operator    *pki.Identity
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	ca, err := pki.InitCA(filepath.Join(dir, "ca"), "demo", pki.Options{})
	require.NoError(t, err)
	issue := func(role, name string) *pki.Identity {
		leaf, err := ca.Issue(role, name, nil, time.Hour)
		require.NoError(t, err)
		path := func(ext string) string { return filepath.Join(dir, role+"-"+name+ext) }
		for ext, b := range map[string][]byte{".ca": ca.CertPEM(), ".pem": leaf.CertPEM, ".key": leaf.KeyPEM} {
			require.NoError(t, os.WriteFile(path(ext), b, 0o600))
		}
		id, err := pki.LoadIdentity(path(".ca"), path(".pem"), path(".key"))
		require.NoError(t, err)
		return id
	}
	w := &world{t: t, dir: filepath.Join(dir, "jobs")}
	w.alpha, w.beta = newFake(t, dir, "alpha", issue("front", "alpha")), newFake(t, dir, "beta", issue("front", "beta"))
	w.alpha.run[api.OpExport] = func(t *fakeTask) string {
		<-t.cancelled
		return `"kind":"error","code":"cancelled","message":"cancelled","retryable":false`
	}
	w.beta.run[api.OpImport] = func(*fakeTask) string {
		w.alpha.finishAll()
		return `"kind":"result","value":{"digest":"b3:1","size":10,"target":"created"}`
	}
	w.alpha.run[api.OpDigest] = func(*fakeTask) string { return `"kind":"result","value":{"digest":"b3:1","size":10}` }
	operator := issue("operator", "ann")
	w.operator = operator
	clients := map[string]*client.Client{}
	for _, f := range []*fake{w.alpha, w.beta} {
		c := client.New(client.Config{Node: config.ClusterNode{Name: f.name, URL: f.srv.URL}, TLS: pki.ClientTLS(operator, f.name, nil), RetryFor: 3 * time.Second})
		clients[f.name] = c
		t.Cleanup(c.Close)
	}
	w.store, err = job.OpenStore(w.dir)
	require.NoError(t, err)
	w.driver = &job.Driver{Client: func(node string) (*client.Client, error) { return clients[node], nil }, Stdout: &w.out}
	return w
}

// copySpec is alpha:disks/a to beta:disks/b.
func copySpec() job.Spec {
	return job.Spec{
		Kind: job.Copy, Cluster: "demo", Mode: api.ModeCreate,
		From: job.Place{Node: "alpha", File: api.File{Resource: "disks", Path: "a"}},
		To:   job.Place{Node: "beta", File: api.File{Resource: "disks", Path: "b"}},
	}
}

// run begins the job of spec and drives it.
func (w *world) run(ctx context.Context, spec job.Spec) (final feedback.Record, resumed bool, id string, err error) {
	j, resumed, err := w.store.Begin(spec, false)
	require.NoError(w.t, err)
	defer j.Close()
	final, err = w.driver.Run(ctx, j)
	return final, resumed, j.ID, err
}
