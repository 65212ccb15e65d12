package feedback

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable returns s on one line with everything that could move a cursor,
// colour a terminal, hide text or turn its direction shown as an escape:
// control characters, format characters, line separators and bytes that are
// no UTF-8.
func Printable(s string) string {
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if hidden(r) {
			q := strconv.QuoteToASCII(s[:n])
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

func hidden(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r) && r != '\u00a0'
}

// cutMark ends a text that was cut.
const cutMark = " […]"

// fit returns s as valid UTF-8, cut with a mark so that it takes at most n
// bytes inside a JSON string.
func fit(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	size, cut := 0, 0 // cut: where the text ends if it has to make room for the mark
	for i, r := range s {
		if size <= n-len(cutMark) {
			cut = i
		}
		if size += quoted(r); size > n {
			return s[:cut] + cutMark
		}
	}
	return s
}

// quoted is the number of bytes of r inside a JSON string.
func quoted(r rune) int {
	switch {
	case r == '"' || r == '\\' || r == '\b' || r == '\f' || r == '\n' || r == '\r' || r == '\t':
		return 2
	case r < ' ':
		return 6
	}
	return utf8.RuneLen(r)
}
