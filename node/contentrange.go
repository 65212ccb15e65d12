package node

import (
	"strconv"
	"strings"

	"gantry/api"
)

// parseContentRange reads the Content-Range header of what is pushed (RFC 9110,
// section 14.4): bytes FIRST-LAST/TOTAL, where TOTAL may be "*": then total is
// -1. Anything else is refused, as are numbers beyond 2^53 - 1.
func parseContentRange(header string) (off, length, total int64, err error) {
	const form = "the Content-Range header is not bytes FIRST-LAST/TOTAL or bytes FIRST-LAST/*"
	refuse := func(why string) (int64, int64, int64, error) { return 0, 0, 0, api.BadRequest.Err(why) }
	if len(header) > maxRangeHeader {
		return refuse(form)
	}
	spec, ok := strings.CutPrefix(header, "bytes ")
	span, whole, slash := strings.Cut(spec, "/")
	first, last, dash := strings.Cut(span, "-")
	if !ok || !slash || !dash {
		return refuse(form)
	}
	from, okFrom := plainNumber(first)
	to, okTo := plainNumber(last)
	if !okFrom || !okTo {
		return refuse(form)
	}
	total = -1
	if whole != "*" {
		if total, ok = plainNumber(whole); !ok {
			return refuse(form)
		}
	}
	switch {
	case to < from:
		return refuse("the Content-Range header's range is reversed")
	case total >= 0 && to >= total:
		return refuse("the Content-Range header's range ends beyond its total")
	}
	return from, to - from + 1, total, nil
}

// plainNumber is 1*DIGIT up to maxNumber; no sign, no space.
func plainNumber(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n < maxNumber
}
