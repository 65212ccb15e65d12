package api

import (
	"errors"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// ErrDepth is a value nested deeper than MaxDepth.
var ErrDepth = errors.New("the JSON is nested too deep")

// Decode reads one JSON value strictly: an unknown field, a field twice, in
// other case, nested deeper than MaxDepth, or anything after the value is an
// error that names its place as a JSON pointer. Callers bound r (MaxBody).
func Decode(r io.Reader, v any) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return DecodeBytes(b, v)
}

// DecodeBytes is Decode for a value in memory.
func DecodeBytes(b []byte, v any) error {
	if deep(b) {
		return ErrDepth
	}
	return json.Unmarshal(b, v, json.RejectUnknownMembers(true))
}

// deep looks for brackets alone: what is no JSON is refused afterwards.
func deep(b []byte) bool {
	depth, text := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// Raw is a JSON value kept as it came.
type Raw = jsontext.Value

// Encode renders v as compact JSON. It panics on a value that has no JSON
// form: every caller passes a struct of this module.
func Encode(v any) Raw {
	b, err := json.Marshal(v)
	if err != nil {
		panic("api: encoding: " + err.Error())
	}
	return b
}
