package feedback_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// The catalogue of bad input, list C. A case is a stream after its hello: the
// records that are handed on, and then a refusal that names a number, or the
// end.
//
// Deviations, with their reason:
//
//	C40  a key in another case is an unknown member, and ignored like every one; where the record needs the real one it is refused
//	C46  a digest is demanded where the operation has one: by ReaderOptions.Check
//	C49  escapes and markup are data; whoever shows them uses Printable
//	C50  clocks of nodes differ, and nothing is decided by a record's time: it is kept
//	C53  what was trimmed is a gap, not an error; above the last is ErrAfter (409)
type row struct {
	name  string
	in    string // after hello
	kinds string // of what is handed on after hello
	seq   int64  // of the refusal
	rule  string // part of the refusal's text; "": none
	err   error  // otherwise, how the stream ends; nil: well
}

func catalogue() []row {
	done := func(seq int) string { return stored(seq, "result", `,"value":{}`) }
	return []row{
		{"C35 line over 60 KiB", text(logLine(1), stored(2, "log", `,"text":"`+strings.Repeat("x", feedback.MaxJobLine)+`"`)), "log:1", 1, "a line over 61440 bytes", nil},
		{"C35 line over 60 KiB by padding alone", text(logLine(1), logLine(2)+strings.Repeat(" ", feedback.MaxJobLine)), "log:1", 1, "a line over 61440 bytes", nil},
		{"C35 endless line", text(logLine(1)) + `{"seq":2,"text":"` + strings.Repeat("x", 10*feedback.MaxJobLine), "log:1", 1, "a line over", nil},
		{"C36 no newline before the end", text(logLine(1)) + done(2), "log:1", 0, "", io.ErrUnexpectedEOF},
		{"C37 CRLF", logLine(1) + "\r\n", "", 0, "control character", nil},
		{"C37 BOM", text("\xef\xbb\xbf" + logLine(1)), "", 0, "byte order mark", nil},
		{"C37 NUL", text(stored(1, "log", `,"text":"`+"\x00"+`"`)), "", 0, "control character", nil},
		{"C37 invalid UTF-8", text(stored(1, "log", `,"text":"`+"\xff"+`"`)), "", 0, "invalid UTF-8", nil},
		{"C37 lone surrogate", text(logLine(1), stored(2, "log", `,"text":"\ud800"`)), "log:1", 1, "not one JSON object", nil},
		{"C37 empty line", text(logLine(1), ""), "log:1", 1, "an empty line", nil},
		{"C38 depth 16", text(stored(1, "state", `,"state":"x","detail":`+strings.Repeat("[", 15)+strings.Repeat("]", 15)), done(2)), "state:1 result:2", 0, "", nil},
		{"C38 depth 17", text(stored(1, "state", `,"state":"x","detail":`+strings.Repeat("[", 16)+strings.Repeat("]", 16)), done(2)), "", 0, "nesting deeper than 16", nil},
		{"C38 depth 17 in an unknown field", text(stored(1, "log", `,"x":`+strings.Repeat(`{"a":`, 16)+"0"+strings.Repeat("}", 16))), "", 0, "nesting deeper than 16", nil},
		{"C38 brackets inside a string", text(stored(1, "log", `,"text":"\"[[[[[[[[[[[[[[[[[[[["`), done(2)), "log:1 result:2", 0, "", nil},
		{"C39 duplicate key", text(logLine(1), stored(2, "log", `,"text":"a","text":"b"`)), "log:1", 1, "a duplicate key", nil},
		{"C39 duplicate seq", text(stored(1, "log", `,"seq":1`)), "", 0, "a duplicate key", nil},
		{"C39 duplicate key inside a value", text(stored(1, "state", `,"state":"x","detail":{"a":1,"a":1}`)), "", 0, "a duplicate key", nil},
		{"C39 duplicate key by escape", text(stored(1, "log", `,"\u0073eq":1`)), "", 0, "a duplicate key", nil},
		{"C40 needed key in other case", text(logLine(1), fmt.Sprintf(`{"SEQ":2,"t":"%s","kind":"log","text":"x"}`, stamp)), "log:1", 1, "stored record without number", nil},
		{"C40 other case beside the real key", text(stored(1, "log", `,"SEQ":7,"Kind":"result","T":3`), done(2)), "log:1 result:2", 0, "", nil},
		{"C41 unknown kind with a number counts", text(stored(1, "sparkle", `,"state":7`), done(2)), "sparkle:1 result:2", 0, "", nil},
		{"C41 unknown kind without", text(`{"kind":"sparkle","seqs":[]}`, done(1)), "sparkle result:1", 0, "", nil},
		{"C41 unknown field", text(stored(1, "log", `,"level":"info","text":"x","new":{"a":[1]}`), done(2)), "log:1 result:2", 0, "", nil},
		{"C41 no kind", text(`{"seq":1}`), "", 1, "no kind", nil},
		{"C41 member of another type", text(stored(1, "log", `,"text":7`)), "", 1, "a member of another type", nil},
		{"C42 seq repeated with the same bytes", text(logLine(1), logLine(2), logLine(1), logLine(2)+"   ", done(3)), "log:1 log:2 result:3", 0, "", nil},
		{"C42 seq repeated with other bytes", text(logLine(1), logLine(2), stored(1, "log", `,"level":"info","text":"else"`)), "log:1 log:2", 1, "other bytes", nil},
		{"C42 final repeated with the same bytes", text(logLine(1), done(2), done(2)), "log:1 result:2", 0, "", nil},
		{"C43 seq gap", text(logLine(1), logLine(3)), "log:1", 3, "a number that should be 2", nil},
		{"C43 first number is not 1", text(logLine(2)), "", 2, "a number that should be 1", nil},
		{"C43 seq zero", text(logLine(0)), "", 0, "a number outside", nil},
		{"C43 seq negative", text(logLine(1), logLine(-1)), "log:1", 1, "a number outside", nil},
		{"C43 seq 2^53+1", text(logLine(1), stored(1<<53+1, "log", "")), "log:1", 1<<53 + 1, "a number outside", nil},
		{"C43 seq 1e3", text(strings.Replace(logLine(1), `"seq":1`, `"seq":1e0`, 1)), "", 0, "another type", nil},
		{"C43 seq as text", text(strings.Replace(logLine(1), `"seq":1`, `"seq":"1"`, 1)), "", 0, "another type", nil},
		{"C43 gap fits", text(logLine(1), `{"kind":"gap","from":2,"to":8,"why":"trimmed"}`, done(9)), "log:1 gap:2-8 result:9", 0, "", nil},
		{"C43 gap and then another number", text(`{"kind":"gap","from":1,"to":8,"why":"trimmed"}`, logLine(10)), "gap:1-8", 10, "should be 9", nil},
		{"C43 gap from elsewhere", text(logLine(1), `{"kind":"gap","from":3,"to":8,"why":"lost"}`), "log:1", 1, "should be from 2", nil},
		{"C43 gap backwards", text(logLine(1), `{"kind":"gap","from":2,"to":1,"why":"lost"}`), "log:1", 1, "a gap without", nil},
		{"C43 live record with a number", text(stored(1, "heartbeat", `,"last":0`)), "", 1, "live record with a number", nil},
		{"C44 record after the final", text(done(1), logLine(2)), "result:1", 2, "after the final", nil},
		{"C44 heartbeat after the final", text(done(1), `{"kind":"heartbeat","t":"`+stamp+`","last":1}`), "result:1", 1, "after the final", nil},
		{"C44 unknown kind after the final", text(done(1), `{"kind":"sparkle"}`), "result:1", 1, "after the final", nil},
		{"C44 half a line after the final", text(done(1)) + `{"se`, "result:1", 1, "after the final", nil},
		{"C45 two finals", text(done(1), stored(2, "error", `,"code":"x","message":"y"`)), "result:1", 2, "after the final", nil},
		{"C45 two finals under one number", text(done(1), stored(1, "error", `,"code":"x","message":"y"`)), "result:1", 1, "other bytes", nil},
		{"C46 final without digest", text(logLine(1), stored(2, "result", `,"value":{"op":"copy"}`)), "log:1", 2, "no digest", nil},
		{"C46 final without value", text(stored(1, "result", "")), "", 1, "a result without value", nil},
		{"C47 end without final", text(logLine(1), logLine(2)), "log:1 log:2", 0, "", io.ErrUnexpectedEOF},
		{"C47 end after hello", "", "", 0, "", io.ErrUnexpectedEOF},
		{"C48 second hello of another job", text(logLine(1), strings.Replace(helloLine, "t1", "t2", 1)), "log:1", 1, "a second hello", nil},
		{"C49 terminal escapes and HTML in text", text(stored(1, "log", `,"level":"info","text":"\u001b[2J<script>alert(1)</script>"`), done(2)), "log:1 result:2", 0, "", nil},
		{"C49 raw escape byte", text(stored(1, "log", `,"text":"`+"\x1b"+`"`)), "", 0, "control character", nil},
		{"C50 time far in future", text(strings.Replace(logLine(1), "2026", "9999", 1), done(2)), "log:1 result:2", 0, "", nil},
		{"C50 time in another form", text(strings.Replace(logLine(1), ".120Z", "Z", 1)), "", 1, "a time that is not", nil},
		{"C50 time with an offset", text(strings.Replace(logLine(1), ".120Z", ".120+02:00", 1)), "", 1, "a time that is not", nil},
		{"C50 no time", text(`{"seq":1,"kind":"log","text":"x"}`), "", 1, "no time", nil},
		{"C51 percent 101", text(`{"kind":"progress","item":"a","done":101,"total":100,"unit":"%"}`), "", 0, "more done than there is", nil},
		{"C51 NaN", text(`{"kind":"progress","item":"a","done":NaN}`), "", 0, "not one JSON object", nil},
		{"C51 infinite rate", text(`{"kind":"progress","item":"a","done":1,"rate":1e999}`), "", 0, "another type", nil},
		{"C51 negative done", text(`{"kind":"progress","item":"a","done":-1}`), "", 0, "a negative count", nil},
		{"C51 negative total", text(`{"kind":"progress","item":"a","done":1,"total":-1}`), "", 0, "a negative total or eta", nil},
		{"C52 two objects on a line", text(logLine(1) + logLine(2)), "", 0, "not one JSON object", nil},
		{"C52 array", text("[" + logLine(1) + "]"), "", 0, "not one JSON object", nil},
		{"C52 object and text", text(logLine(1) + " x"), "", 0, "not one JSON object", nil},
		{"C53 trimmed is a gap", text(`{"kind":"gap","from":1,"to":4,"why":"trimmed"}`, done(5)), "gap:1-4 result:5", 0, "", nil},
	}
}

func TestCatalogue(t *testing.T) {
	for _, c := range catalogue() {
		t.Run(c.name, func(t *testing.T) {
			rd := feedback.NewReader(strings.NewReader(text(helloLine)+c.in), feedback.ReaderOptions{ID: "t1", Check: needsDigest})
			var got []feedback.Record
			err := rd.Each(func(rec feedback.Record) error {
				if rec.Kind != feedback.KindHello {
					got = append(got, rec)
				}
				return nil
			})
			require.Equal(t, c.kinds, kinds(got), "error: %v", err)
			if c.rule == "" {
				require.Equal(t, c.err, err)
				return
			}
			var f *feedback.FormatError
			require.ErrorAs(t, err, &f)
			require.ErrorContains(t, err, c.rule)
			require.Equal(t, c.seq, f.Seq, "%v", err)
			_, again := rd.Read()
			require.Equal(t, err, again, "a refusal sticks")
		})
	}
}

// needsDigest is what an operation with a digest demands of its result.
func needsDigest(rec feedback.Record) error {
	if r, ok := rec.Body.(*feedback.Result); ok && strings.Contains(string(r.Value), `"op":"copy"`) && !strings.Contains(string(r.Value), `"digest"`) {
		return errors.New("no digest")
	}
	return nil
}

func TestCatalogueOfHello(t *testing.T) {
	for _, c := range []struct{ name, in, rule string }{
		{"C48 other job's id", text(strings.Replace(helloLine, "t1", "t2", 1)), "the feed of another id"},
		{"C48 no id", text(strings.Replace(helloLine, `"t1"`, `""`, 1)), "a hello without id"},
		{"C48 no hello", text(logLine(1)), "the first line is not a hello"},
		{"C41 newer version", text(strings.Replace(helloLine, `"v":1`, `"v":2`, 1)), "format version 2, this program reads 1"},
		{"C52 a front's HTML", "<html>\n<head><title>502 Bad Gateway</title></head>\n", "not one JSON object"},
		{"C52 a front's JSON", `{"error":"bad gateway"}` + "\n", "no kind"},
		{"C53 a feed that lost what was seen", text(helloLine), "a feed that ends at 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := feedback.NewReader(strings.NewReader(c.in), feedback.ReaderOptions{ID: "t1", After: int64(strings.Count(c.name, "C53"))}).Read()
			require.ErrorContains(t, err, c.rule)
			require.ErrorAs(t, err, new(*feedback.FormatError))
		})
	}
	t.Run("C53 above the last", func(t *testing.T) {
		f, _ := newFeed(t, feedback.Options{})
		require.NoError(t, f.State("running", nil))
		w := newLineWriter()
		require.ErrorIs(t, f.Stream(t.Context(), feedback.NewWriter(w, feedback.WriterOptions{}), 2, feedback.Hello{ID: "t1"}), feedback.ErrAfter)
		require.Empty(t, w.lines, "nothing was written")
	})
}

func TestReaderMemory(t *testing.T) {
	t.Run("C42 a repeat too old to compare", func(t *testing.T) {
		var in strings.Builder
		in.WriteString(text(helloLine))
		for n := range feedback.SeenLines + 1 {
			in.WriteString(text(logLine(n + 1)))
		}
		in.WriteString(text(logLine(2)))
		in.WriteString(text(logLine(1)))
		rd := feedback.NewReader(strings.NewReader(in.String()), feedback.ReaderOptions{})
		err := rd.Each(func(feedback.Record) error { return nil })
		require.ErrorContains(t, err, fmt.Sprintf("refused at record 1: a number that goes back from %d", feedback.SeenLines+1))
	})
	t.Run("C35 a bound of the caller", func(t *testing.T) {
		for padding, ok := range map[int]bool{0: true, 10: true, 11: false} {
			in := helloLine + strings.Repeat(" ", padding) + "\n"
			_, err := feedback.NewReader(strings.NewReader(in), feedback.ReaderOptions{MaxLine: len(helloLine) + 11}).Read()
			require.Equal(t, ok, err == nil, "%d: %v", padding, err)
		}
	})
	t.Run("C42 repeats after attaching again", func(t *testing.T) {
		rd := feedback.NewReader(strings.NewReader(text(helloLine, logLine(1), logLine(2))), feedback.ReaderOptions{})
		require.ErrorIs(t, rd.Each(func(feedback.Record) error { return nil }), io.ErrUnexpectedEOF)
		again := strings.Replace(helloLine, `"last":0`, `"last":2`, 1)
		rd.Attach(strings.NewReader(text(again, logLine(1), logLine(2), stored(3, "result", `,"value":1`))))
		var got []feedback.Record
		require.NoError(t, rd.Each(func(rec feedback.Record) error { got = append(got, rec); return nil }))
		require.Equal(t, "hello result:3", kinds(got))
		rd.Attach(strings.NewReader(text(strings.Replace(again, `"last":2`, `"last":3`, 1), stored(1, "log", `,"text":"else"`))))
		_, err := rd.Read()
		require.NoError(t, err)
		_, err = rd.Read()
		require.ErrorContains(t, err, "refused at record 1: other bytes")
	})
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain, größer, 日本":              "plain, größer, 日本",
		"\x1b[2J\x07":                    `\x1b[2J\a`,
		"a\nb\tc":                        `a\nb\tc`,
		"bad \xff byte":                  `bad \xff byte`,
		"right-to-left \u202e override":  `right-to-left \u202e override`,
		"zero\u200bwidth":                `zero\u200bwidth`,
		"csi \u009b31m line\u2028 break": `csi \u009b31m line\u2028 break`,
	} {
		require.Equal(t, want, feedback.Printable(in))
	}
}
