package feedback

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// envelope has the members that mean the same in every record, whatever its kind.
type envelope struct {
	Kind Kind   `json:"kind"`
	Seq  *int64 `json:"seq"`
	T    string `json:"t"`
}

// line is a record of a known kind as it is written: the number comes first,
// so that a journal can be searched without parsing its lines.
type line[T any] struct {
	Seq  int64  `json:"seq,omitzero"`
	T    string `json:"t,omitzero"`
	Kind Kind   `json:"kind"`
	Body T      `json:",embed"`
}

// progressLine is Progress on the wire, where unknown numbers are absent.
type progressLine struct {
	Item  string  `json:"item"`
	Phase string  `json:"phase,omitzero"`
	Done  int64   `json:"done"`
	Total *int64  `json:"total,omitzero"`
	Unit  string  `json:"unit,omitzero"`
	Rate  float64 `json:"rate,omitzero"`
	ETA   *int64  `json:"eta,omitzero"`

	TotalIs string `json:"total_is,omitzero"`
	Proved  int64  `json:"proved,omitzero"`
	Durable int64  `json:"durable,omitzero"`
	Stalled int64  `json:"stalled,omitzero"`
	Why     string `json:"why,omitzero"`
}

func lineOf(p *Progress) *progressLine {
	return &progressLine{
		Item: p.Item, Phase: p.Phase, Done: p.Done, Total: known(p.Total), Unit: p.Unit, Rate: p.Rate, ETA: known(p.ETA),
		TotalIs: p.TotalIs, Proved: p.Proved, Durable: p.Durable, Stalled: p.Stalled, Why: p.Why,
	}
}

func (l *progressLine) progress() *Progress {
	p := &Progress{
		Item: l.Item, Phase: l.Phase, Done: l.Done, Total: -1, Unit: l.Unit, Rate: l.Rate, ETA: -1,
		TotalIs: l.TotalIs, Proved: l.Proved, Durable: l.Durable, Stalled: l.Stalled, Why: l.Why,
	}
	if l.Total != nil {
		p.Total = *l.Total
	}
	if l.ETA != nil {
		p.ETA = *l.ETA
	}
	return p
}

// Encode returns the line of rec, compact, without padding and newline. It
// refuses what Decode refuses. A record of an unknown kind is its Line.
func Encode(rec Record) ([]byte, error) {
	if rec.Body == nil {
		if rec.Kind.known() || rec.Line == nil {
			return nil, fmt.Errorf("encoding %s record: it has no body", rec.Kind)
		}
		return bytes.Clone(rec.Line), nil
	}
	if err := checkEnvelope(rec); err != nil {
		return nil, fmt.Errorf("encoding %s record: %w", rec.Kind, err)
	}
	if err := checkBody(rec.Body); err != nil {
		return nil, fmt.Errorf("encoding %s record: %w", rec.Kind, err)
	}
	b, err := marshalLine(rec)
	if err != nil {
		return nil, fmt.Errorf("encoding %s record: %w", rec.Kind, err)
	}
	if len(b)+1 > MaxJobLine {
		return nil, fmt.Errorf("encoding %s record: %w", rec.Kind, errLong)
	}
	if depth(b) > MaxDepth {
		return nil, fmt.Errorf("encoding %s record: nested deeper than %d", rec.Kind, MaxDepth)
	}
	return b, nil
}

func marshalLine(rec Record) ([]byte, error) {
	switch b := rec.Body.(type) {
	case *Hello:
		return marshalAs(rec, KindHello, b)
	case *State:
		return marshalAs(rec, KindState, b)
	case *Log:
		return marshalAs(rec, KindLog, b)
	case *Task:
		return marshalAs(rec, KindTask, b)
	case *Result:
		if b.Value == nil {
			b = &Result{Value: jsontext.Value("null")}
		}
		return marshalAs(rec, KindResult, b)
	case *Error:
		return marshalAs(rec, KindError, b)
	case *Heartbeat:
		return marshalAs(rec, KindHeartbeat, b)
	case *Gap:
		return marshalAs(rec, KindGap, b)
	case *Progress:
		return marshalAs(rec, KindProgress, lineOf(b))
	}
	return nil, fmt.Errorf("body is a %T", rec.Body)
}

func marshalAs[T any](rec Record, kind Kind, body *T) ([]byte, error) {
	if rec.Kind != kind {
		return nil, fmt.Errorf("body is a %T", rec.Body)
	}
	l := line[T]{Seq: rec.Seq, Kind: kind, Body: *body}
	if !rec.Time.IsZero() {
		l.T = rec.Time.UTC().Format(TimeLayout)
	}
	// Strings inside raw values keep their bytes: a record that passes through
	// several hands stays the same record.
	return json.Marshal(&l, jsontext.PreserveRawStrings(true))
}

// known is nil for -1, the unknown of Progress.
func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

// Decode reads one line, without newline; spaces at its end are padding. It
// ignores unknown members and keeps unknown kinds (Body nil). Everything else
// that is not of the format is refused with a *FormatError. Line of the record
// is part of b.
func Decode(b []byte) (Record, error) {
	b = bytes.TrimRight(b, " ")
	if rule := checkBytes(b); rule != "" {
		return Record{}, &FormatError{Rule: rule}
	}
	var env envelope
	if err := json.Unmarshal(b, &env); err != nil {
		return Record{}, &FormatError{Rule: jsonRule(err), Err: err}
	}
	rec := Record{Kind: env.Kind, Line: b}
	if env.Seq != nil {
		rec.Seq = *env.Seq
		if rec.Seq < 1 || rec.Seq > maxSeq {
			return Record{}, &FormatError{Seq: rec.Seq, Rule: "a number outside 1 to 2^53"}
		}
	}
	if env.T != "" {
		t, err := time.Parse(TimeLayout, env.T)
		// Only one form is legal, so that a line can be written again as it was.
		if err != nil || t.UTC().Format(TimeLayout) != env.T || t.Year() < 1970 {
			return Record{}, &FormatError{Seq: rec.Seq, Rule: "a time that is not RFC 3339, UTC, milliseconds"}
		}
		rec.Time = t.UTC()
	}
	if err := decodeBody(&rec); err != nil {
		return Record{}, err
	}
	return rec, nil
}

func decodeBody(rec *Record) error {
	if rec.Kind == "" {
		return &FormatError{Seq: rec.Seq, Rule: "no kind"}
	}
	body := newBody(rec.Kind)
	if body == nil {
		return nil // a later version's; it is counted if it has a number
	}
	if err := json.Unmarshal(rec.Line, body); err != nil {
		return &FormatError{Seq: rec.Seq, Rule: jsonRule(err), Err: err}
	}
	if p, ok := body.(*progressLine); ok {
		if p.Total != nil && *p.Total < 0 || p.ETA != nil && *p.ETA < 0 {
			return &FormatError{Rule: "a negative total or eta"}
		}
		body = p.progress()
	}
	rec.Body = body
	if err := checkEnvelope(*rec); err != nil {
		return &FormatError{Seq: rec.Seq, Rule: err.Error()}
	}
	if err := checkBody(body); err != nil {
		return &FormatError{Seq: rec.Seq, Rule: err.Error()}
	}
	if r, ok := body.(*Result); ok && r.Value == nil {
		return &FormatError{Seq: rec.Seq, Rule: "a result without value"}
	}
	if err := compact(body); err != nil {
		return &FormatError{Seq: rec.Seq, Rule: jsonRule(err), Err: err}
	}
	return nil
}

func newBody(k Kind) any {
	switch k {
	case KindHello:
		return new(Hello)
	case KindState:
		return new(State)
	case KindLog:
		return new(Log)
	case KindTask:
		return new(Task)
	case KindResult:
		return new(Result)
	case KindError:
		return new(Error)
	case KindHeartbeat:
		return new(Heartbeat)
	case KindGap:
		return new(Gap)
	case KindProgress:
		return new(progressLine)
	}
	return nil
}

// compact takes white space out of raw values, so that encoding them again
// gives the same bytes.
func compact(body any) error {
	var err error
	switch b := body.(type) {
	case *State:
		err = compactValue(&b.Detail)
	case *Result:
		err = compactValue(&b.Value)
	case *Error:
		err = compactValue(&b.Detail)
	case *Task:
		err = compactValue(&b.Record)
	}
	return err
}

func compactValue(v *jsontext.Value) error {
	if *v == nil {
		return nil
	}
	return v.Compact()
}

// maxSeq is the greatest number that every JSON reader holds exactly.
const maxSeq = 1 << 53

var errLong = errors.New("the line is too long")

// checkEnvelope holds the rules on numbers and times by kind.
func checkEnvelope(rec Record) error {
	switch {
	case rec.Kind.Stored() && (rec.Seq < 1 || rec.Seq > maxSeq):
		return errors.New("a stored record without number")
	case rec.Kind.Stored() && rec.Time.IsZero(), rec.Kind == KindHeartbeat && rec.Time.IsZero():
		return errors.New("no time")
	case !rec.Kind.Stored() && rec.Seq != 0:
		return errors.New("a live record with a number")
	}
	if y := rec.Time.UTC().Year(); !rec.Time.IsZero() && (y < 1970 || y > 9999) {
		return errors.New("a time that is not RFC 3339, UTC, milliseconds")
	}
	return nil
}

// checkBody holds the rules on the members of each kind.
func checkBody(body any) error {
	switch b := body.(type) {
	case *Hello:
		return checkHello(b)
	case *State:
		if b.State == "" {
			return errors.New("a state without name")
		}
	case *Result:
		if len(b.Value) > MaxResult {
			return ErrResultTooLarge
		}
	case *Error:
		if b.Code == "" {
			return errors.New("an error without code")
		}
	case *Heartbeat:
		if b.Last < 0 || b.Last > maxSeq {
			return errors.New("a last outside 0 to 2^53")
		}
	case *Gap:
		if b.From < 1 || b.To < b.From || b.To > maxSeq || b.Why == "" {
			return errors.New("a gap without from, to or why")
		}
	case *Progress:
		return checkProgress(b)
	case *Task:
		return checkTask(b)
	}
	return nil
}

func checkHello(h *Hello) error {
	switch {
	case h.V != Version:
		return fmt.Errorf("format version %d, this program reads %d", h.V, Version)
	case h.ID == "":
		return errors.New("a hello without id")
	case h.Start < 1 || h.Interval < 1 || h.Last < 0 || h.Last > maxSeq:
		return errors.New("a hello without start, interval or last")
	}
	return nil
}

func checkProgress(p *Progress) error {
	switch {
	case p.Done < 0 || p.Total < -1 || p.ETA < -1 || p.Proved < 0 || p.Durable < 0 || p.Stalled < 0:
		return errors.New("a negative count")
	case p.Total >= 0 && p.Done > p.Total:
		return errors.New("more done than there is")
	case p.Rate < 0 || math.IsNaN(p.Rate) || math.IsInf(p.Rate, 0):
		return errors.New("a rate that is no positive number")
	}
	return nil
}

func checkTask(t *Task) error {
	if t.Node == "" || t.Task == "" {
		return errors.New("a task record without node or task")
	}
	inner, err := Decode(t.Record)
	switch {
	case err != nil:
		return fmt.Errorf("a task's record that is none: %w", err)
	case inner.Seq == 0:
		return errors.New("a task's record that is not a stored one")
	case inner.Kind == KindTask:
		return errors.New("a task's record inside a task's record")
	}
	return nil
}

// checkBytes says what is wrong with a line before it is parsed, or "".
func checkBytes(b []byte) string {
	switch {
	case len(b) == 0:
		return "an empty line"
	case len(b)+1 > MaxJobLine:
		return "a line that is too long"
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		return "a byte order mark"
	case b[0] != '{':
		return "a line that is not one JSON object"
	case bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' }):
		return "a control character"
	case !utf8.Valid(b):
		return "invalid UTF-8"
	case depth(b) > MaxDepth:
		return fmt.Sprintf("nesting deeper than %d", MaxDepth)
	}
	return ""
}

// depth returns the greatest nesting of a line; the parser has no such limit.
func depth(b []byte) (deepest int) {
	n, str := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case str && c == '\\':
			i++
		case c == '"':
			str = !str
		case str:
		case c == '{' || c == '[':
			n++
			deepest = max(deepest, n)
		case c == '}' || c == ']':
			n--
		}
	}
	return deepest
}

// jsonRule names what the parser refused.
func jsonRule(err error) string {
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "a duplicate key"
	case errors.As(err, new(*json.SemanticError)):
		return "a member of another type"
	}
	return "a line that is not one JSON object"
}
