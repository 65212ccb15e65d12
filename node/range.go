package node

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gantry/api"
)

// maxRangeHeader bounds the header: two numbers fit in far less.
const maxRangeHeader = 128

// A span is a part of a file of known size.
type span struct {
	off, length int64
	partial     bool // answered with 206
}

// parseRange reads a Range header (RFC 9110, section 14.2) for a file of size
// bytes. No header, or a unit other than bytes, means the whole file. What the
// RFC lets a server ignore (malformed, reversed) is refused here, as are
// several ranges: a client that asked for a part and got the whole would write
// it at the wrong place. A size of -1 is not known yet: then only a range with
// both ends has a meaning, and whoever reads the content knows how much there is.
func parseRange(header string, size int64) (span, error) {
	whole := span{0, size, false}
	unit, spec, ok := strings.Cut(header, "=")
	if header == "" && size < 0 {
		return span{}, badRange("the size is not known yet: ask for a range")
	}
	if header == "" || ok && !strings.EqualFold(strings.TrimSpace(unit), "bytes") {
		return whole, nil
	}
	if !ok || len(header) > maxRangeHeader {
		return span{}, badRange("the Range header is malformed")
	}
	if strings.Contains(spec, ",") {
		return span{}, badRange("the Range header names several ranges")
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return span{}, badRange("the Range header is malformed")
	}
	if size < 0 && (first == "" || last == "") {
		return span{}, badRange("the size is not known yet: the range needs both ends")
	}
	if first == "" {
		return suffix(last, size)
	}
	from, err := position(first)
	if err != nil {
		return span{}, err
	}
	to := size - 1
	if last != "" {
		if to, err = position(last); err != nil {
			return span{}, err
		}
		if to < from {
			return span{}, badRange("the range is reversed")
		}
		if size >= 0 {
			to = min(to, size-1)
		}
	}
	if size >= 0 && from >= size {
		return span{}, badRange(fmt.Sprintf("the range begins beyond the end, at %d of %d bytes", from, size))
	}
	return span{from, to - from + 1, true}, nil
}

// suffix is "-N": the last N bytes.
func suffix(s string, size int64) (span, error) {
	n, err := position(s)
	if err != nil {
		return span{}, err
	}
	if n == 0 || size == 0 {
		return span{}, badRange("the range is empty")
	}
	n = min(n, size)
	return span{size - n, n, true}, nil
}

// position is 1*DIGIT; no sign, no space.
func position(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, badRange("the Range header is malformed")
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, badRange("the range begins or ends beyond 2^63")
	}
	return n, nil
}

func badRange(why string) error { return api.BadRange.Err(why) }

// header writes what a reply to the span says about itself.
func (s span) header(h http.Header, size int64) (status int) {
	h.Set("Content-Length", strconv.FormatInt(s.length, 10))
	if !s.partial {
		return http.StatusOK
	}
	whole := "*"
	if size >= 0 {
		whole = strconv.FormatInt(size, 10)
	}
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", s.off, s.off+s.length-1, whole))
	return http.StatusPartialContent
}
