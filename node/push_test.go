package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/pki"
	"gantry/transfer"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pushed are the arguments of an import that its creator pushes.
func pushed(path string) api.ImportArgs {
	return api.ImportArgs{File: api.File{Resource: "disks", Path: path}, Push: &api.Pusher{}}
}

// exporter opens a file of this machine as a pusher would.
func exporter(t *testing.T, data []byte) *transfer.Export {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "src"), data, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "work"), 0o700))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	x, err := transfer.OpenExport(root, "src", filepath.Join(dir, "work"), transfer.Silent{})
	require.NoError(t, err)
	t.Cleanup(func() {
		x.Close()
		root.Close()
	})
	return x
}

// push brings x to an import until that has ended.
func push(m *machine, who, task, ticket string, x transfer.Exporter) (api.Wants, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := transfer.Push{From: x, To: client.Demand{Client: m.as(who), Task: task, Ticket: ticket}, Name: "src", RetryFor: 10 * time.Second}
	return p.Run(ctx)
}

func TestPushOfEverySize(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	for _, size := range []int{0, 1, transfer.PieceSize - 1, transfer.PieceSize, transfer.PieceSize + 1, 40<<20 + 77} {
		name := fmt.Sprint(size)
		data := beta.file("src-"+name, size, uint64(size))
		req := newRequest(api.OpImport, pushed(name))
		final := beta.follow("ann", req)
		end, err := push(beta, "ann", req.ID, "", exporter(t, data))
		require.NoError(t, err)
		require.Equal(t, api.Wants{Wants: []api.Want{}, Outcome: api.Done, Digest: digest(data)}, end)
		result := resultOf[api.ImportResult](t, <-final, nil)
		require.Equal(t, digest(data), result.Digest)
		require.Equal(t, int64(size), result.Wire, "bytes that came")
		got, err := os.ReadFile(filepath.Join(beta.dir, "disks", name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
	}
}

func TestPushFromNodeToNode(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	data := alpha.file("disks/vm1.img", 13<<20+777, 1)
	ticket := api.NewTicket()
	args := pushed("vm1.img")
	args.Push = &api.Pusher{ID: pki.ID{Cluster: "demo", Role: pki.RoleNode, Name: "alpha"}.String(), TicketSHA256: api.TicketSHA256(ticket)}
	im := newRequest(api.OpImport, args)
	imported := beta.follow("ann", im)
	export := newRequest(api.OpExport, api.ExportArgs{
		File: api.File{Resource: "disks", Path: "vm1.img"}, To: &api.PushTo{Node: "beta", Task: im.ID, Ticket: ticket},
	})
	rec, err := alpha.run("ann", export)
	require.Equal(t, digest(data), resultOf[api.ExportResult](t, rec, err).Digest)
	require.Equal(t, digest(data), resultOf[api.ImportResult](t, <-imported, nil).Digest)
	for _, m := range []*machine{alpha, beta} {
		require.NotContains(t, m.log.String(), ticket)
		require.NotContains(t, m.ask("ann", "GET", "/tasks", nil, "").body, ticket)
	}
}

// TestPushSurvivesTheNode: both responders go away in the middle, and the tasks
// go on under their ids.
func TestPushSurvivesTheNode(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	data := beta.file("src", 40<<20, 3)
	req := newRequest(api.OpImport, pushed("a"))
	final := beta.follow("ann", req)
	slow := &stalling{Exporter: exporter(t, data), after: 12 << 20, stalled: make(chan struct{}), goOn: make(chan struct{})}
	ended := make(chan api.Wants, 1)
	go func() {
		end, err := push(beta, "ann", req.ID, "", slow)
		assert.NoError(t, err)
		ended <- end
	}()
	<-slow.stalled
	beta.halt()
	close(slow.goOn)
	beta.start()
	require.Equal(t, api.Done, (<-ended).Outcome)
	result := resultOf[api.ImportResult](t, <-final, nil)
	require.Equal(t, digest(data), result.Digest)
	require.LessOrEqual(t, result.Wire, int64(len(data))+16<<20)
	require.Equal(t, 2, waitForTask(beta, "ann", req.ID).Start)
}

// stalling is an exporter whose content stops once, until goOn.
type stalling struct {
	transfer.Exporter
	after         int64
	stalled, goOn chan struct{}
}

func (s *stalling) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	if off >= s.after {
		select {
		case s.stalled <- struct{}{}:
			<-s.goOn
		case <-s.goOn:
		case <-ctx.Done():
		}
	}
	return s.Exporter.Content(ctx, off, length)
}

func TestPushRights(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	ticket := api.NewTicket()
	args := pushed("a")
	args.Push = &api.Pusher{ID: "spiffe://demo/operator/bob", TicketSHA256: api.TicketSHA256(ticket)}
	req := newRequest(api.OpImport, args)
	beta.follow("ann", req)
	beta.file("disks/there", 10, 1)
	export := newRequest(api.OpExport, api.ExportArgs{File: api.File{Resource: "disks", Path: "there"}})
	beta.follow("ann", export)

	bytesType := map[string]string{"Content-Type": api.TypeBytes, "Content-Range": "bytes 0-0/1"}
	linesType := map[string]string{"Content-Type": api.TypeFeed}
	with := func(header map[string]string, ticket string) map[string]string {
		out := map[string]string{api.TicketHeader: ticket}
		for k, v := range header {
			out[k] = v
		}
		return out
	}
	calls := func(who, id, ticket string) []reply {
		return []reply{
			beta.ask(who, "GET", "/tasks/"+id+"/missing", with(nil, ticket), ""),
			beta.ask(who, "PUT", "/tasks/"+id+"/manifest?want=1", with(linesType, ticket), "x"),
			beta.ask(who, "PUT", "/tasks/"+id+"/content?want=1", with(bytesType, ticket), "x"),
		}
	}
	unknown := calls("ann", api.NewID(), "")[0]
	for name, c := range map[string]struct{ who, id, ticket string }{
		"another caller":            {"hub", req.ID, ""},
		"another caller and ticket": {"hub", req.ID, ticket},
		"named, no ticket":          {"bob", req.ID, ""},
		"named, wrong ticket":       {"bob", req.ID, api.NewTicket()},
		"an export":                 {"ann", export.ID, ""},
		"no such task":              {"ann", api.NewID(), ""},
	} {
		for _, r := range calls(c.who, c.id, c.ticket) {
			require.Equal(t, 404, r.status, "%s: %s", name, r.body)
			require.Equal(t, unknown.body, r.body, "%s: it must look like a task that is not there", name)
		}
	}
	for _, c := range []struct{ who, ticket string }{{"ann", ""}, {"bob", ticket}} {
		r := beta.ask(c.who, "GET", "/tasks/"+req.ID+"/missing", with(nil, c.ticket), "")
		require.Equal(t, 200, r.status, r.body)
		require.Contains(t, r.body, `"kind":"manifest"`)
	}
	// Who may push may not read the feed, cancel, or read: only the creator may.
	for _, path := range []string{"", "/feed", "/manifest", "/content"} {
		require.Equal(t, 404, beta.ask("bob", "GET", "/tasks/"+req.ID+path, with(nil, ticket), "").status, path)
	}
}

func TestPushArguments(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	file := api.File{Resource: "disks", Path: "a"}
	id, hash := "spiffe://demo/node/alpha", strings.Repeat("0", 64)
	source := api.Source{Node: "beta", Task: api.NewID(), Ticket: hash}
	for name, c := range map[string]struct {
		op   string
		args any
		text string
	}{
		"both":          {api.OpImport, api.ImportArgs{File: file, Push: &api.Pusher{}, Source: source}, "args.push and args.source"},
		"neither":       {api.OpImport, api.ImportArgs{File: file}, "args.source.task"},
		"id alone":      {api.OpImport, api.ImportArgs{File: file, Push: &api.Pusher{ID: id}}, "args.push.ticket_sha256"},
		"ticket alone":  {api.OpImport, api.ImportArgs{File: file, Push: &api.Pusher{TicketSHA256: hash}}, "args.push.id"},
		"to and reader": {api.OpExport, api.ExportArgs{File: file, To: &api.PushTo{}, Reader: &api.Reader{}}, "args.to and args.reader"},
		"to no task":    {api.OpExport, api.ExportArgs{File: file, To: &api.PushTo{Node: "beta", Task: "x", Ticket: hash}}, "args.to.task"},
		"to no node":    {api.OpExport, api.ExportArgs{File: file, To: &api.PushTo{Task: api.NewID(), Ticket: hash}}, "args.to.node"},
		"to no ticket":  {api.OpExport, api.ExportArgs{File: file, To: &api.PushTo{Node: "beta", Task: api.NewID()}}, "args.to.ticket"},
	} {
		r := beta.ask("ann", "POST", "/tasks", jsonType, string(api.Encode(newRequest(c.op, c.args))))
		require.Equal(t, 400, r.status, "%s: %s", name, r.body)
		require.Contains(t, r.problem.Detail, c.text, name)
	}
	r := beta.ask("ann", "POST", "/tasks", jsonType, string(api.Encode(newRequest(api.OpExport, api.ExportArgs{
		File: file, To: &api.PushTo{Node: "gamma", Task: api.NewID(), Ticket: hash},
	}))))
	require.Equal(t, 404, r.status, r.body)
	require.Contains(t, r.problem.Detail, "cluster.toml")
}

// TestHostilePush sends what no pusher of ours would. The import goes on, and an
// honest pusher ends it.
func TestHostilePush(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	data := beta.file("src", 9<<20, 5)
	req := newRequest(api.OpImport, pushed("a"))
	final := beta.follow("ann", req)
	d := client.Demand{Client: beta.as("ann"), Task: req.ID}
	wants, err := d.Missing(t.Context(), 0)
	require.NoError(t, err)
	require.Len(t, wants.Wants, 1)
	first := wants.Wants[0]

	path := "/tasks/" + req.ID
	lines := func(query, body string) reply {
		return beta.ask("ann", "PUT", path+"/manifest?"+query, map[string]string{"Content-Type": api.TypeFeed}, body)
	}
	content := func(query, header, body string) reply {
		return beta.ask("ann", "PUT", path+"/content?"+query, map[string]string{"Content-Type": api.TypeBytes, "Content-Range": header}, body)
	}
	seq := fmt.Sprintf("want=%d", first.Seq)
	big := strings.Repeat("x", api.MaxPart+1)
	for name, c := range map[string]struct {
		r    reply
		code string
	}{
		"no want":                          {lines("", "x"), "not_wanted"},
		"unknown want":                     {lines("want=7", "x"), "not_wanted"},
		"a want that is no number":         {lines("want=x", "x"), "bad_request"},
		"a want beyond 2^53":               {lines("want=9007199254740993", "x"), "bad_request"},
		"D62 another window":               {lines(seq+"&from=64", "x"), "offset_mismatch"},
		"D62 not the beginning":            {lines(seq+"&at=5", "x"), "offset_mismatch"},
		"last is not 0 or 1":               {lines(seq+"&last=2", "x"), "bad_request"},
		"a part that is too long":          {lines(seq, big), "too_large"},
		"D62 content in place of lines":    {content(seq, "bytes 0-0/1", "x"), "offset_mismatch"},
		"content of no want":               {content("want=7", "bytes 0-0/1", "x"), "not_wanted"},
		"no Content-Range":                 {content(seq, "", "x"), "bad_request"},
		"Content-Range in another unit":    {content(seq, "items 0-0/1", "x"), "bad_request"},
		"Content-Range reversed":           {content(seq, "bytes 5-4/9", "x"), "bad_request"},
		"Content-Range beyond its total":   {content(seq, "bytes 0-9/9", "xxxxxxxxxx"), "bad_request"},
		"Content-Range and another length": {content(seq, "bytes 0-3/9", "x"), "bad_request"},
		"Content-Range of 1 TiB":           {content(seq, "bytes 0-1099511627775/*", "x"), "too_large"},
	} {
		require.Equal(t, c.code, c.r.problem.Code, "%s: %s", name, c.r.body)
	}
	// Parts that break the manifest end the import; what is only cut does not.
	require.Equal(t, 204, lines(seq+"&last=1", `{"kind":"heartbeat"}`+"\n").status, "a window without its last line is a cut one")
	end, err := push(beta, "ann", req.ID, "", exporter(t, data))
	require.NoError(t, err)
	require.Equal(t, api.Done, end.Outcome)
	require.Equal(t, digest(data), resultOf[api.ImportResult](t, <-final, nil).Digest)
}

// TestPushWithoutALength: fronts cannot carry it to a FastCGI responder.
func TestPushWithoutALength(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	req := newRequest(api.OpImport, pushed("a"))
	beta.follow("ann", req)
	r, err := http.NewRequest("PUT", "https://"+beta.addr+api.Prefix+"/tasks/"+req.ID+"/content?want=1", io.MultiReader(strings.NewReader("x")))
	require.NoError(t, err)
	r.Header.Set("Content-Type", api.TypeBytes)
	r.Header.Set("Content-Range", "bytes 0-0/*")
	resp, err := beta.http("ann").Do(r)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 411, resp.StatusCode)
}

// TestLyingPusher: what a source may lie about, a pusher may too, and nothing is
// published.
func TestLyingPusher(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	data := beta.file("src", 9<<20, 5)
	for name, c := range map[string]struct {
		change func(path string, b []byte) []byte
		code   string
	}{
		"in its content": {func(kind string, b []byte) []byte {
			if kind == "content" {
				b[0] ^= 1
			}
			return b
		}, "corrupt_piece"},
		"in its digest": {func(kind string, b []byte) []byte {
			if kind == "content" {
				return b
			}
			return bytes.Replace(b, []byte(digest(data)), []byte("b3:"+strings.Repeat("0", 64)), 1)
		}, "bad_manifest"},
		"in its size": {func(kind string, b []byte) []byte {
			if kind == "content" {
				return b
			}
			return bytes.Replace(b, []byte(`"size":9437184`), []byte(`"size":-9437184`), 1)
		}, "bad_manifest"},
		"with a line without end": {func(kind string, b []byte) []byte {
			if kind == "content" {
				return b
			}
			return bytes.Repeat([]byte("x"), 10_000)
		}, "bad_manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			req := newRequest(api.OpImport, pushed("lied"))
			final := beta.follow("ann", req)
			end, err := push(beta, "ann", req.ID, "", &lying{exporter(t, data), c.change})
			require.NoError(t, err)
			require.Equal(t, api.Failed, end.Outcome)
			require.Equal(t, c.code, end.Code, end.Message)
			require.Equal(t, c.code, codeOf(t, <-final, nil))
			require.NoFileExists(t, filepath.Join(beta.dir, "disks", "lied"))
			beta.dropStages()
		})
	}
}

// lying changes what an exporter gives.
type lying struct {
	transfer.Exporter
	change func(kind string, b []byte) []byte
}

func (l *lying) Window(ctx context.Context, from, n, done int64, w io.Writer) error {
	var b bytes.Buffer
	if err := l.Exporter.Window(ctx, from, n, done, &b); err != nil {
		return err
	}
	_, err := w.Write(l.change("manifest", b.Bytes()))
	return err
}

func (l *lying) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	rc, err := l.Exporter.Content(ctx, off, length)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(rc)
	return io.NopCloser(bytes.NewReader(l.change("content", b))), err
}

// TestPushOfAChangedSource: the reason reaches whoever waits for the import.
func TestPushOfAChangedSource(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	x := exporter(t, beta.file("src", 20<<20, 1))
	req := newRequest(api.OpImport, pushed("a"))
	final := beta.follow("ann", req)
	end, err := push(beta, "ann", req.ID, "", &edited{x})
	require.NoError(t, err)
	require.Equal(t, "source_changed", end.Code, end.Message)
	require.Equal(t, "source_changed", codeOf(t, <-final, nil))
	require.NoFileExists(t, filepath.Join(beta.dir, "disks", "a"))
	beta.dropStages()
}

// dropStages removes what failed imports keep for a day.
func (m *machine) dropStages() {
	require.NoError(m.t, os.RemoveAll(filepath.Join(m.dir, "disks", transfer.StageDir)))
}

// edited is a source that somebody writes to once its manifest is known.
type edited struct {
	transfer.Exporter
}

func (e *edited) Content(context.Context, int64, int64) (io.ReadCloser, error) {
	return nil, api.SourceChanged.Err("the source has other times")
}

func TestReach(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta", "gamma")
	alpha := w.all["alpha"].start()
	w.all["beta"].start()
	for node, want := range map[string]string{"beta": api.ReachOK, "gamma": api.ReachUnreachable, "delta": api.ReachUnknown} {
		got, err := alpha.as("ann").Reach(t.Context(), node)
		require.NoError(t, err)
		require.Equal(t, node, got.Node)
		require.Equal(t, want, got.Outcome, got.Message)
	}
	_, err := alpha.as("hub").Reach(t.Context(), "beta")
	require.ErrorContains(t, err, "forbidden")
}

// TestPushUsesTheOldCopy: only the parts that differ are pushed.
func TestPushUsesTheOldCopy(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	data := beta.file("disks/a", 24<<20+5, 9)
	for _, at := range []int{100, 5 << 20, 9<<20 + 1, 24 << 20} {
		data[at] ^= 1
	}
	args := pushed("a")
	args.Mode = api.ModeReplace
	req := newRequest(api.OpImport, args)
	final := beta.follow("ann", req)
	end, err := push(beta, "ann", req.ID, "", exporter(t, data))
	require.NoError(t, err)
	require.Equal(t, digest(data), end.Digest)
	result := resultOf[api.ImportResult](t, <-final, nil)
	require.LessOrEqual(t, result.Bytes.Fetched, int64(4*transfer.PartSize), "%+v", result)
	got, err := os.ReadFile(filepath.Join(beta.dir, "disks/a"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

// TestPushUnderTheTargetsLimit: a limit of the import alone holds the pusher back,
// so that nothing piles up in a front.
func TestPushUnderTheTargetsLimit(t *testing.T) {
	w := newWorld(t, "", "beta")
	beta := w.all["beta"].start()
	data := beta.file("src", 6<<20, 5)
	args := pushed("a")
	args.Bandwidth = 4 << 20
	req := newRequest(api.OpImport, args)
	final := beta.follow("ann", req)
	sent := &measured{Exporter: exporter(t, data), start: time.Now()}
	end, err := push(beta, "ann", req.ID, "", sent)
	require.NoError(t, err)
	require.Equal(t, api.Done, end.Outcome)
	result := resultOf[api.ImportResult](t, <-final, nil)
	require.EqualValues(t, len(data), result.Wire)
	require.Greater(t, sent.last.Load(), int64(time.Second), "the last byte was read at the source after 6 MiB at 4 MiB/s")
}

// measured notes when its content was read last.
type measured struct {
	transfer.Exporter
	start time.Time
	last  atomic.Int64
}

func (m *measured) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	rc, err := m.Exporter.Content(ctx, off, length)
	return &measuredReader{rc, m}, err
}

type measuredReader struct {
	io.ReadCloser
	m *measured
}

func (r *measuredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.m.last.Store(int64(time.Since(r.m.start)))
	return n, err
}

// TestPushSurvivesTheSource: the exporting node restarts, and its export goes on
// pushing.
func TestPushSurvivesTheSource(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"].start(), w.all["beta"].start()
	data := alpha.file("disks/a", 20<<20, 4)
	ticket := api.NewTicket()
	args := pushed("a")
	args.Bandwidth = 16 << 20
	args.Push = &api.Pusher{ID: "spiffe://demo/node/alpha", TicketSHA256: api.TicketSHA256(ticket)}
	im := newRequest(api.OpImport, args)
	imported := beta.follow("ann", im)
	export := newRequest(api.OpExport, api.ExportArgs{
		File: api.File{Resource: "disks", Path: "a"}, To: &api.PushTo{Node: "beta", Task: im.ID, Ticket: ticket},
	})
	exported := alpha.follow("ann", export)
	require.Eventually(t, func() bool { return strings.Contains(beta.log.String(), "push content") || beta.hasStaged(1<<20) }, 20*time.Second, 5*time.Millisecond)
	alpha.restart()
	result := resultOf[api.ImportResult](t, <-imported, nil)
	require.Equal(t, digest(data), result.Digest)
	require.LessOrEqual(t, result.Wire, int64(len(data))+16<<20)
	require.Equal(t, digest(data), resultOf[api.ExportResult](t, <-exported, nil).Digest)
	require.Equal(t, 2, waitForTask(alpha, "ann", export.ID).Start)
}

// hasStaged says whether n bytes of a stage are there.
func (m *machine) hasStaged(n int64) bool {
	paths, _ := filepath.Glob(filepath.Join(m.dir, "disks", transfer.StageDir, "*.stage"))
	for _, path := range paths {
		var st syscall.Stat_t
		if syscall.Stat(path, &st) == nil && st.Blocks*512 >= n {
			return true
		}
	}
	return false
}

// TestPushOfATree: from node to node, and from a folder of the caller's own.
func TestPushOfATree(t *testing.T) {
	w := newWorld(t, "", "alpha", "beta")
	alpha, beta := w.all["alpha"], w.all["beta"]
	from, to := alpha.trees(""), beta.trees("writable = true\n")
	alpha.write("alpha/home/ann/mail/1", "first", 0o600)
	alpha.write("alpha/home/zoe", strings.Repeat("second", 1<<20), 0o644)
	require.NoError(t, os.Symlink("nowhere", filepath.Join(from, "link")))
	require.NoError(t, os.Link(filepath.Join(from, "zoe"), filepath.Join(from, "zoe2")))
	alpha.start()
	beta.start()
	ticket := api.NewTicket()
	args := api.ImportArgs{File: api.File{Resource: "home", Path: "copy"}, Push: &api.Pusher{ID: "spiffe://demo/node/alpha", TicketSHA256: api.TicketSHA256(ticket)}}
	im := newRequest(api.OpImport, args)
	imported := beta.follow("ann", im)
	rec, err := alpha.run("ann", newRequest(api.OpExport, api.ExportArgs{
		File: api.File{Resource: "home"}, To: &api.PushTo{Node: "beta", Task: im.ID, Ticket: ticket},
	}))
	result := resultOf[api.ImportResult](t, <-imported, nil)
	require.Equal(t, result.Digest, resultOf[api.ExportResult](t, rec, err).Digest)
	require.EqualValues(t, 1, result.Entries.Links)
	requireSameTree(t, from, filepath.Join(to, "copy"))

	root, err := os.OpenRoot(from)
	require.NoError(t, err)
	defer root.Close()
	x, err := transfer.OpenTree(root, "", t.TempDir(), transfer.TreeOptions{}, transfer.Silent{})
	require.NoError(t, err)
	defer x.Close()
	args.Path, args.Push = "mine", &api.Pusher{}
	im = newRequest(api.OpImport, args)
	imported = beta.follow("ann", im)
	end, err := push(beta, "ann", im.ID, "", x)
	require.NoError(t, err)
	require.Equal(t, result.Digest, end.Digest)
	require.Equal(t, result.Digest, resultOf[api.ImportResult](t, <-imported, nil).Digest)
	requireSameTree(t, from, filepath.Join(to, "mine"))
}

// requireSameTree compares with diff and with find, which are not ours.
func requireSameTree(t *testing.T, a, b string) {
	t.Helper()
	list := func(dir string) string {
		cmd := exec.Command("find", ".", "-name", ".gantry", "-prune", "-o", "-mindepth", "1", "-printf", `%P %y %m %n %T@ %l\n`)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		lines := strings.Split(string(out), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	require.Equal(t, list(a), list(b))
	out, err := exec.Command("diff", "-r", "--no-dereference", "-x", ".gantry", a, b).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
