package transfer

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"time"

	"gantry/api"
	"gantry/feedback"

	"github.com/go-json-experiment/json"
)

// Limits of a manifest.
const (
	manifestVersion = 1
	// maxLine holds every line of the protocol with room for a front's padding.
	maxLine = 4096
	// maxBeats bounds the heartbeats of one window: a day at one per 10 s.
	maxBeats = 8640
	// MaxSize is the largest file: a size must survive JSON readers that know
	// only doubles (RFC 8259 section 6).
	MaxSize = 1<<53 - 1
)

// File is what the first line of a window says about the source.
type File struct {
	Size  int64 // bytes; of a stream -1 before its last piece
	Data  int64 // bytes that are no holes, an estimate to ask for space with
	MTime time.Time
	// Stream says that the size is unknown until the end. Data and MTime are not
	// set then.
	Stream bool
}

// Entry is a piece, or a run of pieces that hold only zeros.
type Entry struct {
	N     int64 // first piece
	Count int64 // number of pieces, 1 unless Zero
	Zero  bool
	Value Value // unset when Zero
}

// Window is the outcome of a window that was received whole.
type Window struct {
	File   File
	Next   int64  // first piece after the window
	End    bool   // the last piece is in it
	Digest string // of the whole file, "b3:" and 64 hex digits, only when End
}

// line is the union of all lines; each kind has exactly its own keys.
type line struct {
	Kind      string  `json:"kind"`
	V         *int64  `json:"v,omitzero"`
	Size      *int64  `json:"size,omitzero"`
	Piece     *int64  `json:"piece,omitzero"`
	Data      *int64  `json:"data,omitzero"`
	MTime     *string `json:"mtime,omitzero"` // RFC 3339, UTC, nanoseconds
	N         *int64  `json:"n,omitzero"`
	Value     *string `json:"value,omitzero"`
	Values    *string `json:"values,omitzero"` // of parts, base64
	From      *int64  `json:"from,omitzero"`
	Count     *int64  `json:"count,omitzero"`
	Next      *int64  `json:"next,omitzero"`
	Digest    *string `json:"digest,omitzero"`
	Code      *string `json:"code,omitzero"`
	Message   *string `json:"message,omitzero"`
	Retryable *bool   `json:"retryable,omitzero"`
}

// Kinds of lines.
const (
	kindFile   = "file"
	kindStream = "stream"
	kindPiece  = "piece"
	kindZero   = "zero"
	kindParts  = "parts" // in replies to Sub only
	kindBeat   = "heartbeat"
	kindWindow = "window"
	kindEnd    = "end"
	kindError  = "error"
)

// keys lists the keys of each kind, in the order of the struct.
var keys = map[string]string{
	kindFile:   "v size piece data mtime",
	kindStream: "v piece",
	kindPiece:  "n value",
	kindZero:   "from count",
	kindParts:  "n values",
	kindBeat:   "",
	kindWindow: "next",
	kindEnd:    "size digest",
	kindError:  "code message retryable",
}

// present lists the keys that the line has, in the form of keys.
func (l *line) present() string {
	var names []string
	has := func(name string, is bool) {
		if is {
			names = append(names, name)
		}
	}
	has("v", l.V != nil)
	has("size", l.Size != nil)
	has("piece", l.Piece != nil)
	has("data", l.Data != nil)
	has("mtime", l.MTime != nil)
	has("n", l.N != nil)
	has("value", l.Value != nil)
	has("values", l.Values != nil)
	has("from", l.From != nil)
	has("count", l.Count != nil)
	has("next", l.Next != nil)
	has("digest", l.Digest != nil)
	has("code", l.Code != nil)
	has("message", l.Message != nil)
	has("retryable", l.Retryable != nil)
	return strings.Join(names, " ")
}

// lineReader reads the lines of a manifest and checks their form.
type lineReader struct {
	br    *bufio.Reader
	beats int
}

// next returns the next line that is no heartbeat.
func (lr *lineReader) next() (*line, error) {
	for {
		raw, err := lr.br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, badManifest("a line is longer than %d bytes", maxLine)
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF // a part of a line, or no last line
		case err != nil:
			return nil, err
		}
		l := new(line)
		if err := json.Unmarshal(raw, l, json.RejectUnknownMembers(true)); err != nil {
			return nil, fail(api.BadManifest, err, "manifest line %.80q does not parse", raw)
		}
		want, known := keys[l.Kind]
		if !known || l.present() != want {
			return nil, badManifest("line of kind %.20q has the keys %q, not %q", l.Kind, l.present(), want)
		}
		if l.Kind != kindBeat {
			return l, nil
		}
		if lr.beats++; lr.beats > maxBeats {
			return nil, badManifest("more than %d heartbeats in a window", maxBeats)
		}
	}
}

func badManifest(format string, args ...any) error {
	return fail(api.BadManifest, nil, "manifest of the source: "+format, args...)
}

// ReadWindow reads the window that starts at piece from and has at most n
// pieces, and hands its entries to emit as they come; an error of emit ends it.
// A window that ended without its last line is io.ErrUnexpectedEOF, one that
// breaks the protocol has the code bad_manifest, and an error line of the source
// is a *[feedback.Error]. Memory is bounded whatever r delivers.
//
// The last entry of a stream is handed to emit with the size of the whole, all
// others with -1. So each waits for the line after it.
func ReadWindow(r io.Reader, from, n int64, emit func(File, Entry) error) (Window, error) {
	lr := &lineReader{br: bufio.NewReaderSize(r, maxLine)}
	file, err := lr.file()
	if err != nil {
		return Window{}, err
	}
	pieces := Pieces(file.Size)
	if from >= pieces {
		return Window{}, badManifest("a window from piece %d of %d", from, pieces)
	}
	w := Window{File: file, Next: from}
	limit := min(from+n, pieces)
	var held []Entry // of a stream, at most one
	for {
		l, err := lr.next()
		if err != nil {
			return w, err
		}
		e, last, err := w.take(l, limit)
		if err != nil {
			return w, err
		}
		due := held
		if held = nil; file.Stream && !last {
			held = []Entry{e}
		} else if !last {
			due = []Entry{e}
		}
		if w.End && file.Stream && len(due) == 0 {
			return w, badManifest("a stream ends without its last piece")
		}
		for _, e := range due {
			if err := emit(w.File, e); err != nil {
				return w, err
			}
		}
		if last {
			return w, lr.end()
		}
		w.Next = e.N + e.Count
	}
}

// file reads the first line.
func (lr *lineReader) file() (File, error) {
	l, err := lr.next()
	if err != nil {
		return File{}, err
	}
	switch {
	case l.Kind == kindError:
		return File{}, l.wire()
	case l.Kind != kindFile && l.Kind != kindStream:
		return File{}, badManifest("the first line is of kind %q", l.Kind)
	case *l.V != manifestVersion:
		return File{}, badManifest("version %d is not %d", *l.V, manifestVersion)
	case *l.Piece != PieceSize:
		return File{}, badManifest("pieces of %d bytes, not %d", *l.Piece, PieceSize)
	case l.Kind == kindStream:
		return File{Size: -1, Stream: true}, nil
	case *l.Size < 0 || *l.Size > MaxSize:
		return File{}, badManifest("a size of %d bytes", *l.Size)
	case *l.Data < 0 || *l.Data > *l.Size:
		return File{}, badManifest("%d bytes of data in a file of %d", *l.Data, *l.Size)
	}
	mtime, err := time.Parse(time.RFC3339Nano, *l.MTime)
	if err != nil || mtime.Year() < 1 || mtime.UTC().Format(time.RFC3339Nano) != *l.MTime {
		return File{}, badManifest("mtime %.80q is not in UTC and its shortest form", *l.MTime)
	}
	return File{Size: *l.Size, Data: *l.Data, MTime: mtime.UTC()}, nil
}

// take judges a line after the first: an entry, or the last line.
func (w *Window) take(l *line, limit int64) (e Entry, last bool, err error) {
	switch l.Kind {
	case kindPiece:
		v, ok := parseValue(*l.Value)
		if !ok {
			return e, false, badManifest("piece %d has the value %.80q", *l.N, *l.Value)
		}
		e = Entry{N: *l.N, Count: 1, Value: v}
	case kindZero:
		e = Entry{N: *l.From, Count: *l.Count, Zero: true}
	case kindWindow:
		// A stream's may be shorter, also empty: its source has no room for more.
		if *l.Next != w.Next || w.Next != limit && !w.File.Stream || limit == Pieces(w.File.Size) {
			return e, false, badManifest("the window ends at piece %d, %d are decided, %d were due", *l.Next, w.Next, limit)
		}
		return e, true, nil
	case kindEnd:
		return e, true, w.finish(l)
	case kindError:
		return e, false, l.wire()
	default:
		return e, false, badManifest("line of kind %q within a window", l.Kind)
	}
	if e.N != w.Next || e.Count < 1 || e.Count > limit-e.N {
		return e, false, badManifest("%d pieces from %d where %d is due and %d is the limit", e.Count, e.N, w.Next, limit)
	}
	return e, false, nil
}

func (w *Window) finish(l *line) error {
	if _, ok := ParseDigest(*l.Digest); !ok {
		return badManifest("digest %.80q", *l.Digest)
	}
	if w.File.Stream && *l.Size >= 0 && *l.Size <= MaxSize {
		w.File.Size = *l.Size
	}
	if *l.Size != w.File.Size || w.Next != Pieces(w.File.Size) {
		return badManifest("it ends at piece %d with size %d, not at %d with %d", w.Next, *l.Size, Pieces(w.File.Size), w.File.Size)
	}
	w.End, w.Digest = true, *l.Digest
	return nil
}

// wire is the error that the source reports.
func (l *line) wire() error {
	return &feedback.Error{Code: *l.Code, Message: "source: " + *l.Message, Retryable: *l.Retryable}
}

// end sees to it that nothing follows the last line. An error in place of the
// end is none of the window's: all of it is here.
func (lr *lineReader) end() error {
	if _, err := lr.br.ReadByte(); err == nil {
		return badManifest("bytes after the last line")
	}
	return nil
}

// Lines that the exporter writes.

func (l line) append(b []byte) []byte {
	out, err := json.Marshal(l)
	if err != nil {
		panic("manifest line does not marshal: " + err.Error()) // strings are made valid by wireError
	}
	return append(append(b, out...), '\n')
}

func fileLine(f File) line {
	v, piece := int64(manifestVersion), int64(PieceSize)
	if y := f.MTime.UTC().Year(); y < 1 || y > 9999 { // RFC 3339 has four digits, a file's time has more
		f.MTime = time.Unix(0, 0)
	}
	mtime := f.MTime.UTC().Format(time.RFC3339Nano)
	return line{Kind: kindFile, V: &v, Size: &f.Size, Piece: &piece, Data: &f.Data, MTime: &mtime}
}

func streamLine() line {
	v, piece := int64(manifestVersion), int64(PieceSize)
	return line{Kind: kindStream, V: &v, Piece: &piece}
}

func entryLine(e Entry) line {
	if e.Zero {
		return line{Kind: kindZero, From: &e.N, Count: &e.Count}
	}
	value := e.Value.String()
	return line{Kind: kindPiece, N: &e.N, Value: &value}
}

func windowLine(next int64) line { return line{Kind: kindWindow, Next: &next} }

func endLine(size int64, digest string) line {
	return line{Kind: kindEnd, Size: &size, Digest: &digest}
}

// maxMessage keeps an error line, escaped, below maxLine.
const maxMessage = 512

func errorLine(err error) line {
	wire, ok := errors.AsType[*feedback.Error](err)
	if !ok {
		wire = api.Internal.Err("the export failed")
	}
	message := wire.Message
	if len(message) > maxMessage {
		message = message[:maxMessage]
	}
	message = strings.ToValidUTF8(message, "�")
	return line{Kind: kindError, Code: &wire.Code, Message: &message, Retryable: &wire.Retryable}
}
