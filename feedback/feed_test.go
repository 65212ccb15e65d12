package feedback_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

func TestFeedFromStartToFinal(t *testing.T) {
	f, path := newFeed(t, feedback.Options{ID: "t1"})
	require.NoError(t, f.State("running", nil))
	f.Log("warn", "vm1.img", "connection lost, retry in 0.5 s")
	require.NoError(t, f.State("publishing", map[string]any{"b": 1, "a": "<&>"}))
	_, ok := f.Final()
	require.False(t, ok)
	require.NoError(t, f.Finish(map[string]int{"bytes": 7}, nil))
	<-f.Done()

	all := records(t, replay(t, f, 0), feedback.ReaderOptions{ID: "t1"})
	require.Equal(t, "hello state:1 log:2 state:3 result:4", kinds(all))
	h := all[0].Body.(*feedback.Hello)
	require.Equal(t, feedback.Hello{V: 1, ID: "t1", Start: 1, Interval: 10, Last: 4}, *h)
	require.JSONEq(t, `{"a":"<&>","b":1}`, string(all[3].Body.(*feedback.State).Detail))
	require.JSONEq(t, `{"bytes":7}`, string(all[4].Body.(*feedback.Result).Value))
	final, ok := f.Final()
	require.True(t, ok)
	require.Equal(t, string(all[4].Line), string(final.Line))

	require.ErrorIs(t, f.Finish(nil, nil), feedback.ErrFinished)
	require.ErrorIs(t, f.State("late", nil), feedback.ErrFinished)
	f.Log("info", "", "late")
	require.Equal(t, int64(4), f.Last())

	before := replay(t, f, 2)
	require.NoError(t, f.Close())
	g, err := feedback.Open(path, feedback.Options{ID: "t1"})
	require.NoError(t, err)
	defer g.Close()
	<-g.Done()
	require.Equal(t, before, replay(t, g, 2), "the same bytes after a restart")
	again, ok := g.Final()
	require.True(t, ok)
	require.Equal(t, final, again)
	require.ErrorIs(t, g.Finish(nil, nil), feedback.ErrFinished)
}

func TestAFeedAtRestHasNoGoroutineAndAFinishedOneNoDescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, path := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		synctest.Wait()
		require.False(t, f.Flushing())
		require.Equal(t, 1, holders(t, path))
		require.NoError(t, f.Finish(nil, nil))
		synctest.Wait()
		require.False(t, f.Flushing())
		require.Zero(t, holders(t, path))
	})
}

// holders counts the descriptors of this process on path.
func holders(t *testing.T, path string) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range all {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && target == path {
			n++
		}
	}
	return n
}

func TestFeedGoesOnAfterReopening(t *testing.T) {
	f, path := newFeed(t, feedback.Options{ID: "t1"})
	require.NoError(t, f.State("running", nil))
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.State("late", nil), feedback.ErrClosed)

	_, err := feedback.Open(path, feedback.Options{ID: "t2"})
	require.ErrorContains(t, err, `belongs to "t1", not "t2"`)
	g, err := feedback.Open(path, feedback.Options{})
	require.NoError(t, err)
	defer g.Close()
	require.NoError(t, g.Finish(nil, errors.New("secret path /etc/x")))
	all := records(t, replay(t, g, 0), feedback.ReaderOptions{})
	require.Equal(t, "hello state:1 error:2", kinds(all))
	e := all[2].Body.(*feedback.Error)
	require.Equal(t, "internal", e.Code)
	require.NotContains(t, e.Message, "secret", "what is internal stays in the log")

	_, err = feedback.Create(path, feedback.Options{})
	require.ErrorIs(t, err, os.ErrExist)
}

func TestWireErrorIsFinal(t *testing.T) {
	f, _ := newFeed(t, feedback.Options{})
	want := &feedback.Error{Code: "exists", Message: "vm1.img is there already", Retryable: false, Detail: []byte(`{"name":"vm1.img"}`)}
	require.NoError(t, f.Finish(nil, errors.Join(errors.New("outer"), want)))
	all := records(t, replay(t, f, 0), feedback.ReaderOptions{})
	require.Equal(t, want, all[1].Body)

	big, _ := newFeed(t, feedback.Options{})
	require.NoError(t, big.Finish(nil, &feedback.Error{
		Message: strings.Repeat("\x01", 100_000), Detail: []byte(`"` + strings.Repeat("x", 100_000) + `"`),
	}), "a final must not fail because its text is long")
	e := records(t, replay(t, big, 0), feedback.ReaderOptions{})[1].Body.(*feedback.Error)
	require.Equal(t, "internal", e.Code)
	require.True(t, strings.HasSuffix(e.Message, feedback.CutMark))
	require.JSONEq(t, `{"omitted_bytes":100002}`, string(e.Detail))
}

func TestResultTooLarge(t *testing.T) {
	f, _ := newFeed(t, feedback.Options{})
	err := f.Finish(strings.Repeat("x", feedback.MaxResult), nil)
	require.ErrorIs(t, err, feedback.ErrResultTooLarge)
	require.ErrorContains(t, err, "a result over 32768 bytes: it has 32770")
	require.Error(t, f.Finish(func() {}, nil), "no JSON")
	require.NoError(t, f.Finish(strings.Repeat("x", feedback.MaxResult-2), nil))
}

func TestLongTextsAreCut(t *testing.T) {
	for name, s := range map[string]string{
		"plain":          strings.Repeat("x", 200_000),
		"escaped":        strings.Repeat("\x1b\"\\\n", 50_000),
		"invalid":        strings.Repeat("\xffa", 50_000),
		"wide":           strings.Repeat("日本", 50_000),
		"line separator": strings.Repeat("\u2028\u007f", 50_000),
	} {
		t.Run(name, func(t *testing.T) {
			for _, job := range []bool{false, true} {
				limit := feedback.MaxTaskLine
				if job {
					limit = feedback.MaxJobLine
				}
				f, _ := newFeed(t, feedback.Options{Job: job})
				f.Log(s, s, s)
				require.NoError(t, f.Finish(nil, nil))
				all := records(t, replay(t, f, 0), feedback.ReaderOptions{MaxLine: limit})
				require.Equal(t, "hello log:1 result:2", kinds(all))
				require.LessOrEqual(t, len(all[1].Line)+1, limit)
				require.Greater(t, len(all[1].Line), limit-3<<10, "no more is cut than must be")
				require.True(t, strings.HasSuffix(all[1].Body.(*feedback.Log).Text, feedback.CutMark))
			}
		})
	}
	for n := feedback.MaxTaskLine - 4<<10; n < feedback.MaxTaskLine; n += 61 {
		f, _ := newFeed(t, feedback.Options{})
		f.Log(strings.Repeat("l", 64), strings.Repeat("i", 1<<10), strings.Repeat("x", n))
		require.NoError(t, f.Finish(nil, nil))
		require.Equal(t, int64(2), f.Last(), "a text of %d bytes", n)
	}
	f, _ := newFeed(t, feedback.Options{})
	f.Log("info", "", "short \xff text")
	require.ErrorContains(t, f.State("x", strings.Repeat("x", feedback.MaxTaskLine)), "too long")
	require.NoError(t, f.State("next", nil))
	all := records(t, replayOpen(t, f), feedback.ReaderOptions{})
	require.Equal(t, "log:1 state:2", kinds(all[1:3]), "a refused record takes no number")
	require.Equal(t, "short \uFFFD text", all[1].Body.(*feedback.Log).Text)
}

// replayOpen finishes a feed and returns its stream.
func replayOpen(t *testing.T, f *feedback.Feed) string {
	t.Helper()
	require.NoError(t, f.Finish(nil, nil))
	return replay(t, f, 0)
}

func TestFinishExactlyOnce(t *testing.T) {
	f, _ := newFeed(t, feedback.Options{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 20 {
		wg.Go(func() {
			f.Log("info", "", "racing")
			if f.Finish(1, nil) == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, won)
	all := records(t, replay(t, f, 0), feedback.ReaderOptions{})
	require.Equal(t, feedback.KindResult, all[len(all)-1].Kind)
}

func TestTaskRecordsInAJob(t *testing.T) {
	f, _ := newFeed(t, feedback.Options{Job: true})
	inner := stored(7, "log", `,"level":"info","text":"`+strings.Repeat("x", 50_000)+`"`)
	require.NoError(t, f.Task("beta", "0199", []byte(inner)))
	require.ErrorContains(t, f.Task("beta", "0199", []byte(`{"kind":"heartbeat","t":"`+stamp+`","last":1}`)), "not a stored one")
	require.ErrorContains(t, f.Task("beta", "0199", []byte(`[]`)), "a task's record that is none")
	require.Error(t, f.Task("", "0199", []byte(inner)))
	all := records(t, replayOpen(t, f), feedback.ReaderOptions{})
	require.Equal(t, "hello task:1 result:2", kinds(all))
	require.Equal(t, inner, string(all[1].Body.(*feedback.Task).Record), "the task's record keeps its bytes")
}

// Every line is one JSON object for other readers too.
func TestLinesAreJSON(t *testing.T) {
	f, _ := newFeed(t, feedback.Options{})
	item := f.Item("a\x1b", "fetch", "bytes", 10)
	item.Add(3)
	f.Log("info", "a", "text \u2028 \x1b[0m")
	require.NoError(t, f.State("running", []int{1}))
	for l := range strings.Lines(replayOpen(t, f)) {
		require.True(t, json.Valid([]byte(l)), "%q", l)
		require.NotContains(t, l, ": ", "compact")
	}
}

// brittle is a journal file that fails on demand.
type brittle struct {
	feedback.File
	path       string
	write, syn error
	written    bool // the write has its effect although it is reported as failed
}

func (b *brittle) Append(p []byte) error {
	if b.write == nil || b.written {
		if err := b.File.Append(p); err != nil {
			return err
		}
	}
	return b.write
}

func (b *brittle) Sync() error {
	if b.syn != nil {
		return b.syn
	}
	return b.File.Sync()
}

func TestARecordThatIsNotOnDiskIsNeverShown(t *testing.T) {
	broken := errors.New("input/output error")
	for name, set := range map[string]func(*brittle){
		"write failed":                   func(b *brittle) { b.write = broken },
		"write failed but had an effect": func(b *brittle) { b.write, b.written = broken, true },
		"sync failed":                    func(b *brittle) { b.syn = broken },
	} {
		t.Run(name, func(t *testing.T) {
			var file *brittle
			var calls []error
			o := feedback.Options{OnBroken: func(err error) { calls = append(calls, err) }}.
				WithFile(func(path string) (feedback.File, error) {
					real, err := feedback.OpenFile(path)
					file = &brittle{File: real, path: path}
					return file, err
				})
			f, path := newFeed(t, o)
			require.NoError(t, f.State("one", nil))
			w := newLineWriter()
			streamed := make(chan error)
			go func() {
				streamed <- f.Stream(t.Context(), feedback.NewWriter(w, feedback.WriterOptions{}), 0, feedback.Hello{ID: "t1"})
			}()
			<-w.lines // hello
			<-w.lines // state one
			set(file)
			require.ErrorIs(t, f.State("two", nil), broken)
			require.ErrorIs(t, <-streamed, broken, "live readers are told")
			require.Empty(t, w.lines, "and shown nothing")
			set(&brittle{}) // the disk is well again: too late
			file.write, file.syn = nil, nil
			require.ErrorIs(t, f.State("three", nil), broken, "a failure sticks")
			require.ErrorIs(t, f.Finish(nil, nil), broken)
			f.Log("info", "", "four")
			require.ErrorIs(t, f.Err(), broken)
			require.ErrorIs(t, f.Stream(t.Context(), feedback.NewWriter(w, feedback.WriterOptions{}), 0, feedback.Hello{ID: "t1"}), broken)
			require.Equal(t, int64(1), f.Last())
			require.ErrorIs(t, f.Close(), broken)
			require.Len(t, calls, 1, "OnBroken is called once")

			g, err := feedback.Open(path, feedback.Options{})
			require.NoError(t, err)
			defer g.Close()
			require.Equal(t, int64(1), g.Last(), "not after a restart either")
			require.NoError(t, g.State("other", nil))
			all := records(t, replayOpen(t, g), feedback.ReaderOptions{})
			require.Equal(t, "hello state:1 state:2 result:3", kinds(all))
			require.Equal(t, "other", all[2].Body.(*feedback.State).State)
		})
	}
}

func TestTornLastLineIsCut(t *testing.T) {
	f, path := newFeed(t, feedback.Options{})
	require.NoError(t, f.State("one", nil))
	require.NoError(t, f.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	next := stored(2, "state", `,"state":"two"`)
	for n := range len(next) + 1 {
		torn := filepath.Join(t.TempDir(), "feed")
		require.NoError(t, os.WriteFile(torn, append(whole[:len(whole):len(whole)], next[:n]...), 0o600))
		g, err := feedback.Open(torn, feedback.Options{})
		require.NoError(t, err)
		require.Equal(t, int64(1), g.Last())
		left, err := os.ReadFile(torn)
		require.NoError(t, err)
		require.Equal(t, string(whole), string(left))
		require.NoError(t, g.Close())
	}
}

func TestDamageIsRefusedByLine(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"empty file", "", "line 1: it has no header"},
		{"torn header", `{"format":1`, "line 1: it has no header"},
		{"no header", text(logLine(1)), "line 1: it has no header"},
		{"newer format", text(`{"format":2}`), "line 1: it has format 2, newer than this program, which reads 1"},
		{"zeros", text(`{"format":1}`, logLine(1), "\x00\x00\x00\x00"), "line 3: feed refused"},
		{"number missing", text(`{"format":1}`, logLine(1), logLine(3)), "line 3: expected record 2"},
		{"number twice", text(`{"format":1}`, logLine(1), logLine(1)), "line 3: expected record 2"},
		{"gap elsewhere", text(`{"format":1}`, `{"kind":"gap","from":2,"to":3,"why":"trimmed"}`), "line 2: expected record 1"},
		{"two finals", text(`{"format":1}`, stored(1, "result", `,"value":1`), stored(2, "result", `,"value":1`)), "line 3: something after the final record"},
		{"live record", text(`{"format":1}`, `{"kind":"heartbeat","t":"`+stamp+`","last":0}`), "line 2: expected record 1"},
		{"flipped bit", text(`{"format":1}`, strings.Replace(logLine(1), "kind", "kinf", 1), logLine(2)), "line 2: feed refused"},
		{"endless line", text(`{"format":1}`) + strings.Repeat("x", 100_000), "line 2: the line is too long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "feed")
			require.NoError(t, os.WriteFile(path, []byte(c.content), 0o600))
			_, err := feedback.Open(path, feedback.Options{})
			require.ErrorContains(t, err, c.want)
			left, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, c.content, string(left), "nothing was changed")
		})
	}
}

func TestDamageWhileItIsOpen(t *testing.T) {
	f, path := newFeed(t, feedback.Options{})
	for range 3 {
		require.NoError(t, f.State("running", nil))
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, bytes.Replace(b, []byte(`"seq":2`), []byte(`"seq":7`), 1), 0o600))
	w := newLineWriter()
	err = f.Stream(t.Context(), feedback.NewWriter(w, feedback.WriterOptions{}), 0, feedback.Hello{ID: "t1"})
	require.ErrorContains(t, err, "reading journal: record 7 follows 1")
	require.Equal(t, "hello state:1", kinds(w.took(t)), "nothing wrong was shown")
}

func TestCloseEndsStreams(t *testing.T) {
	f, _ := newFeed(t, feedback.Options{})
	w := newLineWriter()
	ended := make(chan error)
	go func() {
		ended <- f.Stream(context.Background(), feedback.NewWriter(w, feedback.WriterOptions{}), 0, feedback.Hello{ID: "t1"})
	}()
	<-w.lines
	require.NoError(t, f.Close())
	require.ErrorIs(t, <-ended, feedback.ErrClosed)
	require.NoError(t, f.Close(), "twice")
	require.ErrorIs(t, f.Ack(0), feedback.ErrClosed)
}
