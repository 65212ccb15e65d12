package feedback_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

const stamp = "2026-11-20T21:31:04.120Z"

// helloLine begins every stream of the tests.
const helloLine = `{"kind":"hello","v":1,"id":"t1","op":"import","node":"beta","start":1,"interval":10,"last":0,"dir_id":"d"}`

// stored is a stored record with further members.
func stored(seq int, kind, more string) string {
	return fmt.Sprintf(`{"seq":%d,"t":"%s","kind":"%s"%s}`, seq, stamp, kind, more)
}

func logLine(seq int) string {
	return stored(seq, "log", fmt.Sprintf(`,"level":"info","text":"line %d"`, seq))
}

func text(lines ...string) string { return strings.Join(lines, "\n") + "\n" }

// newFeed returns a feed in a folder of its own.
func newFeed(t testing.TB, o feedback.Options) (*feedback.Feed, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "feed")
	f, err := feedback.Create(path, o)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f, path
}

// records reads a whole stream strictly.
func records(t testing.TB, s string, o feedback.ReaderOptions) []feedback.Record {
	t.Helper()
	var all []feedback.Record
	for rec, err := range feedback.NewReader(strings.NewReader(s), o).All() {
		require.NoError(t, err)
		all = append(all, rec)
	}
	return all
}

// replay streams a finished feed into memory.
func replay(t testing.TB, f *feedback.Feed, after int64) string {
	t.Helper()
	rw := httptest.NewRecorder()
	require.NoError(t, f.Stream(t.Context(), feedback.NewWriter(rw, feedback.WriterOptions{}), after, feedback.Hello{ID: "t1"}))
	return rw.Body.String()
}

// kinds lists the kinds of records: "hello progress state:1 …".
func kinds(all []feedback.Record) string {
	var b strings.Builder
	for _, rec := range all {
		fmt.Fprintf(&b, "%s", rec.Kind)
		if rec.Seq != 0 {
			fmt.Fprintf(&b, ":%d", rec.Seq)
		}
		if g, ok := rec.Body.(*feedback.Gap); ok {
			fmt.Fprintf(&b, ":%d-%d", g.From, g.To)
		}
		b.WriteByte(' ')
	}
	return strings.TrimSpace(b.String())
}

// lineWriter is a reply that hands on what is written at each flush.
type lineWriter struct {
	header http.Header
	buf    bytes.Buffer
	lines  chan string
}

func newLineWriter() *lineWriter {
	return &lineWriter{header: http.Header{}, lines: make(chan string, 10_000)}
}

func (w *lineWriter) Header() http.Header         { return w.header }
func (w *lineWriter) WriteHeader(int)             {}
func (w *lineWriter) Write(p []byte) (int, error) { return w.buf.Write(p) }
func (w *lineWriter) FlushError() error {
	w.lines <- w.buf.String()
	w.buf.Reset()
	return nil
}

// took returns the lines flushed so far.
func (w *lineWriter) took(t testing.TB) []feedback.Record {
	t.Helper()
	var all []feedback.Record
	for {
		select {
		case s := <-w.lines:
			require.Equal(t, 1, strings.Count(s, "\n"), "one flush, one line")
			rec, err := feedback.Decode([]byte(strings.TrimSuffix(s, "\n")))
			require.NoError(t, err)
			all = append(all, rec)
		default:
			return all
		}
	}
}
