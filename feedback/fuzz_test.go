package feedback_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// FuzzReader: no stream makes the reader panic; what is accepted comes out of
// Encode as a line that decodes to the same; numbers only go up; nothing
// follows a final.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		text(helloLine, logLine(1), stored(2, "result", `,"value":{"bytes":7}`)),
		text(helloLine, `{"kind":"gap","from":1,"to":8,"why":"trimmed"}`, stored(9, "error", `,"code":"exists","message":"m","retryable":true,"detail":[1, {"a": "\u0041"}]`)),
		text(helloLine, `{"kind":"progress","item":"a","phase":"fetch","done":3,"total":10,"unit":"bytes","rate":612000000.5,"eta":2}   `),
		text(helloLine, `{"kind":"progress","item":"a","done":3,"rate":-0}`, `{"kind":"heartbeat","t":"`+stamp+`","last":0}`),
		text(helloLine, stored(1, "task", `,"node":"beta","task":"0199","record":`+logLine(7))),
		text(helloLine, stored(1, "sparkle", `,"x":null`), logLine(2), logLine(2)),
		text(helloLine, stored(1, "state", `,"state":"publishing","detail": {"digest":"b3:00","ino":7}`)),
		"<html>\r\n", text(logLine(1)), text(helloLine) + logLine(1),
	} {
		f.Add([]byte(s))
	}
	for _, c := range catalogue() {
		f.Add([]byte(text(helloLine) + c.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		rd := feedback.NewReader(bytes.NewReader(in), feedback.ReaderOptions{})
		var last int64
		final := false
		err := rd.Each(func(rec feedback.Record) error {
			require.False(t, final, "a record after the final")
			final = rec.Kind.Final()
			if rec.Seq > 0 {
				require.Greater(t, rec.Seq, last)
				last = rec.Seq
			}
			roundTrip(t, rec)
			return nil
		})
		if err == nil {
			require.True(t, final, "a good end without a final")
		}
	})
}

// FuzzDecode is FuzzReader for one line.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(helloLine))
	f.Add([]byte(stored(2, "result", `,"value":{"bytes":7}`)))
	f.Fuzz(func(t *testing.T, in []byte) {
		if rec, err := feedback.Decode(in); err == nil {
			roundTrip(t, rec)
		} else {
			require.ErrorAs(t, err, new(*feedback.FormatError))
		}
	})
}

func roundTrip(t *testing.T, rec feedback.Record) {
	t.Helper()
	line, err := feedback.Encode(rec)
	require.NoError(t, err)
	again, err := feedback.Decode(line)
	require.NoError(t, err, "%s", line)
	rec.Line, again.Line = nil, nil
	require.Equal(t, rec, again, "%s", line)
}

// FuzzJournal: no file makes Open panic; a file that is refused is left alone;
// one that is accepted keeps every complete line, and the feed goes on there.
func FuzzJournal(f *testing.F) {
	for _, s := range []string{
		text(`{"format":1,"id":"t1"}`, logLine(1), logLine(2)),
		text(`{"format":1}`, logLine(1)) + logLine(2),
		text(`{"format":1}`, `{"kind":"gap","from":1,"to":8,"why":"trimmed"}`, stored(9, "result", `,"value":1`)),
		text(`{"format":2}`), text(logLine(1)), "", text(`{"format":1}`, "\x00\x00"),
		text(`{"format":1}`, `{"kind":"sparkle","seq":1}`, stored(2, "state", `,"state":"x"`)),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		path := filepath.Join(t.TempDir(), "feed")
		require.NoError(t, os.WriteFile(path, in, 0o600))
		feed, err := feedback.Open(path, feedback.Options{})
		left, rerr := os.ReadFile(path)
		require.NoError(t, rerr)
		if err != nil {
			require.Equal(t, in, left, "a refused file was changed")
			return
		}
		defer feed.Close()
		require.Equal(t, in[:bytes.LastIndexByte(in, '\n')+1], left)
		_, finished := feed.Final()
		if !finished {
			require.NoError(t, feed.Finish("x", nil))
		}
		require.NoError(t, feed.Err())
		stream := replay(t, feed, 0)
		rd := feedback.NewReader(strings.NewReader(stream), feedback.ReaderOptions{})
		err = rd.Each(func(feedback.Record) error { return nil })
		require.NoError(t, err, "%s", stream)
		require.Equal(t, feed.Last(), rd.Last())
		require.NoError(t, feed.Reduce())
		_, err = io.Copy(io.Discard, strings.NewReader(replay(t, feed, 0)))
		require.NoError(t, err)
	})
}
