package fastcgi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// Params are the parameters of a request as the front sent them (section 5.2),
// without HTTP_PROXY. They are read-only and may be used from any goroutine.
type Params struct {
	pairs []pair
}

type pair struct{ name, value string }

// Get returns the value of a parameter and whether it was sent. Of a parameter
// that was sent more than once it returns the last value, as CGI programs see it.
func (p *Params) Get(name string) (string, bool) {
	if p != nil {
		for i := len(p.pairs) - 1; i >= 0; i-- {
			if p.pairs[i].name == name {
				return p.pairs[i].value, true
			}
		}
	}
	return "", false
}

// All yields every parameter in the order of the request, also the repeated ones.
func (p *Params) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if p == nil {
			return
		}
		for _, q := range p.pairs {
			if !yield(q.name, q.value) {
				return
			}
		}
	}
}

var (
	errTooManyPairs = errors.New("too many pairs")
	errTruncated    = errors.New("lengths run past the end")
)

// decodePairs reads name-value pairs, section 3.4, of which there may be at most
// limit. The strings share the memory of s.
func decodePairs(s string, limit int) ([]pair, error) {
	if s == "" {
		return nil, nil
	}
	// A first pass over the lengths makes the second one allocate once.
	n := 0
	for rest := s; rest != ""; n++ {
		if n == limit {
			return nil, errTooManyPairs
		}
		_, _, after, err := cutPair(rest)
		if err != nil {
			return nil, fmt.Errorf("pair %d: %w", n+1, err)
		}
		rest = after
	}
	pairs := make([]pair, 0, n)
	for rest := s; rest != ""; {
		name, value, after, _ := cutPair(rest)
		pairs = append(pairs, pair{name, value})
		rest = after
	}
	return pairs, nil
}

func cutPair(s string) (name, value, rest string, err error) {
	n, s, ok := cutLength(s)
	v, s, ok2 := cutLength(s)
	// Both are below 2^31, but their sum may not be: an int of 32 bits would
	// overflow (golang/go#81293).
	if !ok || !ok2 || uint64(n)+uint64(v) > uint64(len(s)) {
		return "", "", "", errTruncated
	}
	return s[:n], s[n : n+v], s[n+v:], nil
}

// cutLength reads one length: a byte below 128, or four bytes with the top bit set.
func cutLength(s string) (n uint32, rest string, ok bool) {
	switch {
	case len(s) >= 1 && s[0] < 0x80:
		return uint32(s[0]), s[1:], true
	case len(s) >= 4:
		return uint32(s[0]&0x7f)<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3]), s[4:], true
	}
	return 0, s, false
}

// appendPair is the inverse of cutPair.
func appendPair(b []byte, name, value string) []byte {
	b = appendLength(b, len(name))
	b = appendLength(b, len(value))
	b = append(b, name...)
	return append(b, value...)
}

func appendLength(b []byte, n int) []byte {
	if n < 0x80 {
		return append(b, byte(n))
	}
	return binary.BigEndian.AppendUint32(b, uint32(n)|1<<31)
}
