package api

import (
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Decode reads one JSON value strictly: an unknown field, a field twice, in
// other case, or anything after the value is an error that names its place as
// a JSON pointer. Callers bound r (MaxBody).
func Decode(r io.Reader, v any) error {
	return json.UnmarshalRead(r, v, json.RejectUnknownMembers(true))
}

// DecodeBytes is Decode for a value in memory.
func DecodeBytes(b []byte, v any) error {
	return json.Unmarshal(b, v, json.RejectUnknownMembers(true))
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
