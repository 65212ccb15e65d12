package transfer

import (
	"fmt"
	"strings"

	"gantry/api"
)

// maxPattern is the most bytes of one pattern.
const maxPattern = 1024

// Filter chooses the entries of a tree by rules as rsync has them: "+ PATTERN" includes,
// "- PATTERN" excludes, the first that matches counts, and what none matches is included. What lies in an
// excluded directory is not looked at.
//
// A pattern that begins with "/" is matched from the tree's root, one with another
// "/" or with "**" against the end of the path, every other one against the last part.
// With "/" at its end it matches directories only. "*" matches within a part, "**"
// across parts, "?" one character that is no "/", "[a-z]" one of a set ("[!a-z]": one that is not
// in it, "[[:digit:]]": of a class), and "dir/***" dir and all that is in it. Where one of "*?["
// is in a pattern, "\" takes the meaning of the next character away.
//
// nil includes everything. May be used concurrently.
type Filter struct{ rules []filterRule }

type filterRule struct {
	include  bool
	pattern  string // without "/" at either end
	anchored bool
	dirs     bool // only directories
	slashes  int
	wild     bool // has one of "*?["
	deep     bool // has "**"
	prefix   bool // begins with it
	suffix   bool // ends with "***"
}

// ParseFilter reads rules in order; without any it returns nil. The code is bad_request.
func ParseFilter(rules []string) (*Filter, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	f, size := &Filter{}, 0
	for i, text := range rules {
		if size += len(text); len(rules) > api.MaxFilter || size > maxFilter {
			return nil, fail(api.BadRequest, nil, "args.filter: more than %d rules or %d bytes of them", api.MaxFilter, maxFilter)
		}
		r, why := parseRule(text)
		if why != "" {
			return nil, fail(api.BadRequest, nil, `args.filter[%d], %.80q: %s; allowed are "+ PATTERN" and "- PATTERN"`, i, text, why)
		}
		f.rules = append(f.rules, r)
	}
	return f, nil
}

// parseRule says why a rule is none.
func parseRule(text string) (r filterRule, why string) {
	sign, pattern, ok := strings.Cut(text, " ")
	switch {
	case !ok || sign != "+" && sign != "-":
		return r, "it begins with neither + nor - and one space"
	case len(pattern) > maxPattern:
		return r, fmt.Sprintf("its pattern is longer than %d bytes", maxPattern)
	case strings.Trim(pattern, "/") == "":
		return r, "its pattern names nothing"
	case strings.ContainsFunc(pattern, isControl):
		return r, "its pattern has a control character"
	}
	r.include = sign == "+"
	if p, ok := strings.CutSuffix(pattern, "/"); ok {
		pattern, r.dirs = p, true
	}
	r.slashes = strings.Count(pattern, "/")
	r.wild = strings.ContainsAny(pattern, "*?[")
	r.deep = strings.Contains(pattern, "**")
	r.prefix = strings.HasPrefix(pattern, "**")
	r.suffix = r.deep && strings.HasSuffix(pattern, "***")
	r.pattern, r.anchored = strings.CutPrefix(pattern, "/")
	return r, ""
}

// Includes says whether the entry at path belongs to the tree, if its directory does.
func (f *Filter) Includes(path string, dir bool) bool {
	if f == nil {
		return true
	}
	for i := range f.rules {
		if f.rules[i].matches(path, dir) {
			return f.rules[i].include
		}
	}
	return true
}

// matches follows rule_matches in exclude.c of rsync 3.2.
func (r *filterRule) matches(name string, dir bool) bool {
	if r.dirs && !dir {
		return false
	}
	whole := r.slashes > 0 || r.deep
	if !whole {
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	if r.prefix {
		name = "/" + name // "**/" matches at the start, too
	}
	if r.suffix && dir {
		name += "/" // "dir/***" matches dir
	}
	tail := !r.anchored && r.slashes > 0 && !r.deep
	switch {
	case !r.wild && r.anchored:
		return name == r.pattern
	case !r.wild:
		return name == r.pattern || strings.HasSuffix(name, "/"+r.pattern)
	case tail:
		return wildMatch(r.pattern, lastParts(name, r.slashes+1))
	case r.anchored || !r.deep || r.prefix:
		return wildMatch(r.pattern, name)
	}
	for {
		if wildMatch(r.pattern, name) {
			return true
		}
		i := strings.IndexByte(name, '/')
		if i < 0 {
			return false
		}
		name = name[i+1:]
	}
}

// lastParts is the last n parts of name, or something that no pattern with n
// parts matches.
func lastParts(name string, n int) string {
	at := len(name)
	for range n {
		if at < 0 {
			return ""
		}
		at = strings.LastIndexByte(name[:at], '/')
	}
	return name[at+1:]
}

// Outcomes of a match: what failed because the text came to its end fails for every shorter
// text too, so that stars do not try one length after the other.
type outcome int

const (
	noMatch outcome = iota
	isMatch
	noneShorter // the text ended
	nextDeep    // a "*" met a "/": only a "**" before it could go on
)

func wildMatch(pattern, text string) bool { return wild(pattern, text) == isMatch }

// wild matches as rsync's lib/wildmatch.c does.
func wild(p, text string) outcome {
	for len(p) > 0 {
		if text == "" && p[0] != '*' {
			return noneShorter
		}
		switch p[0] {
		case '?':
			if text[0] == '/' {
				return noMatch
			}
			p = p[1:]
		case '*':
			return wildStar(p, text)
		case '[':
			rest, in, ok := inSet(p[1:], text[0])
			if !ok {
				return noneShorter
			}
			if !in || text[0] == '/' {
				return noMatch
			}
			p = rest
		default:
			if p[0] == '\\' {
				if p = p[1:]; p == "" {
					return noMatch
				}
			}
			if p[0] != text[0] {
				return noMatch
			}
			p = p[1:]
		}
		text = text[1:]
	}
	if text == "" {
		return isMatch
	}
	return noMatch
}

// wildStar matches a pattern that begins with a star.
func wildStar(p, text string) outcome {
	rest := strings.TrimLeft(p, "*")
	deep := len(p)-len(rest) > 1
	if rest == "" {
		if !deep && strings.Contains(text, "/") {
			return noMatch
		}
		return isMatch
	}
	for ; text != ""; text = text[1:] {
		o := wild(rest, text)
		if o != noMatch && (!deep || o != nextDeep) {
			return o
		}
		if o == noMatch && !deep && text[0] == '/' {
			return nextDeep
		}
	}
	return noneShorter
}

// inSet says whether c is in the set that begins p, behind its "[", and what follows the
// set. It is not ok when the set has no end.
func inSet(p string, c byte) (rest string, in, ok bool) {
	not := p != "" && (p[0] == '!' || p[0] == '^')
	if not {
		p = p[1:]
	}
	for first, last := true, byte(0); ; first = false {
		switch {
		case p == "":
			return "", false, false
		case p[0] == ']' && !first:
			return p[1:], in != not, true
		case p[0] == '-' && last != 0 && len(p) > 1 && p[1] != ']':
			high, k := p[1], 2
			if high == '\\' {
				if len(p) < 3 {
					return "", false, false
				}
				high, k = p[2], 3
			}
			in = in || last <= c && c <= high
			p, last = p[k:], 0
		case strings.HasPrefix(p, "[:"):
			name, after, found := strings.Cut(p[2:], ":]")
			if !found || strings.Contains(name, "]") {
				in, p, last = in || c == '[', p[1:], '['
				continue
			}
			is, known := classes[name]
			if !known {
				return "", false, false
			}
			in = in || is(c)
			p, last = after, 0
		default:
			if p[0] == '\\' {
				if p = p[1:]; p == "" {
					return "", false, false
				}
			}
			in, last, p = in || p[0] == c, p[0], p[1:]
		}
	}
}

// classes are the named sets of characters, in ASCII.
var classes = map[string]func(c byte) bool{
	"alnum":  func(c byte) bool { return isAlpha(c) || isDigit(c) },
	"alpha":  isAlpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < 0x20 || c == 0x7f },
	"digit":  isDigit,
	"graph":  func(c byte) bool { return c > 0x20 && c < 0x7f },
	"lower":  func(c byte) bool { return c >= 'a' && c <= 'z' },
	"print":  func(c byte) bool { return c >= 0x20 && c < 0x7f },
	"punct":  func(c byte) bool { return c > 0x20 && c < 0x7f && !isAlpha(c) && !isDigit(c) },
	"space":  func(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' },
	"upper":  func(c byte) bool { return c >= 'A' && c <= 'Z' },
	"xdigit": func(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' },
}

func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
