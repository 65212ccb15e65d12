package serve

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"

	"gantry/api"
	"gantry/fastcgi"
	"gantry/feedback"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// JSON writes v as the reply. v must be a struct of package api.
func JSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", api.TypeJSON)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, err := w.Write(append(api.Encode(v), '\n'))
	return err
}

// ReadJSON decodes the request's body strictly into v. Errors are wire errors;
// they name the place in the body but never show what stood there.
func ReadJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := ReadBody(w, r, api.MaxBody)
	if err != nil {
		return err
	}
	return DecodeJSON(body, v, "the body")
}

// ReadBody reads the whole body, at most limit bytes.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit) // unread: the front learns early
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	switch {
	case err == nil:
		return body, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, api.BadRequest.Err("the body is shorter than its Content-Length")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, api.BadRequest.Err("the body did not come in time")
	}
	return nil, err
}

// DecodeJSON is api.DecodeBytes with wire errors. what names the value.
func DecodeJSON(data []byte, v any, what string) error {
	err := api.DecodeBytes(data, v)
	if err == nil {
		return nil
	}
	where, why := jsontext.Pointer(""), "is not the JSON that is expected here"
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		where = e.JSONPointer
		switch {
		case errors.Is(err, json.ErrUnknownName):
			why = "is not a known field"
		case e.GoType != nil:
			why = fmt.Sprintf("has the wrong type (want %s)", e.GoType.Kind())
		}
	} else if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		where = e.JSONPointer
		why = "is not well-formed JSON"
		if errors.Is(err, jsontext.ErrDuplicateName) {
			why = "is there twice"
		}
	} else if errors.Is(err, api.ErrDepth) {
		why = fmt.Sprintf("is nested deeper than %d", api.MaxDepth)
	}
	wire := api.BadRequest.Err(fmt.Sprintf("%s: %s %s", what, place(where), why))
	wire.Detail = api.Encode(map[string]string{"pointer": string(where)})
	return wire
}

// maxPointer bounds what of the caller's own names an error shows.
const maxPointer = 80

func place(p jsontext.Pointer) string {
	if p == "" {
		return "it"
	}
	s := feedback.Printable(string(p))
	if len(s) > maxPointer {
		s = s[:maxPointer] + "…"
	}
	return s
}

func tooLarge(limit int64) *feedback.Error {
	return api.TooLarge.Err(fmt.Sprintf("the body is larger than %d bytes", limit))
}

// checkBody holds the request to the route's one media type.
func checkBody(r *http.Request, route api.Route) error {
	if route.Media == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != route.Media {
		return api.BadMedia.Err("this route takes " + route.Media)
	}
	// Package fastcgi keeps the length and drops the header: where both came,
	// somebody in between may have read another body.
	if _, chunked := fastcgi.ParamsFrom(r.Context()).Get("HTTP_TRANSFER_ENCODING"); chunked && r.ContentLength >= 0 {
		return api.BadRequest.Err("the request has both a length and a transfer encoding")
	}
	if r.ContentLength < 0 {
		return api.LengthRequired.Err("the request has no length")
	}
	return nil
}
