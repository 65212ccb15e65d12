package nodeset

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of a set. What exceeds one is refused by name.
const (
	// MaxText is the most bytes of a set as text: MaxNodes names of some length.
	MaxText = 64 << 10
	// MaxNodes is the most nodes of a set, before any are left out.
	MaxNodes = 4096
	// MaxName is the most bytes of a name, as in certificates.
	MaxName = 64
	// maxDigits bounds a number in brackets.
	maxDigits = 9
)

// ErrUnknown: the set is well formed, but names a node or group that there is
// not.
var ErrUnknown = errors.New("not in cluster.toml")

// Known is what a set may name. A nil Nodes knows every name; groups are known
// only where they are listed.
type Known struct {
	Nodes  []string
	Groups map[string][]string
}

// An Error is a set that is refused, in one line.
type Error struct {
	Text    string // the part that is wrong, as it was written, at most 80 bytes of it
	Problem string
	Remedy  string
	err     error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("node set %q: %s", e.Text, e.Problem)
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap returns ErrUnknown for names that there are not.
func (e *Error) Unwrap() error { return e.err }

func bad(text, remedy, format string, args ...any) error {
	if len(text) > 80 {
		text = text[:77] + "..."
	}
	return &Error{Text: text, Problem: fmt.Sprintf(format, args...), Remedy: remedy}
}

func unknown(text, format string, args ...any) error {
	err := bad(text, "", format, args...).(*Error)
	err.err = ErrUnknown
	return err
}

// Parse returns the nodes of a set, each once, in the order in which they are
// first named; never none. The error is an *Error.
func Parse(text string, known Known) ([]string, error) {
	if len(text) > MaxText {
		return nil, bad(text, "make a [[group]] of them in cluster.toml", "it has %d bytes, more than %d", len(text), MaxText)
	}
	items, err := split(text)
	if err != nil {
		return nil, err
	}
	p := parser{known: known, in: map[string]bool{}, out: map[string]bool{}}
	if known.Nodes != nil {
		p.names = make(map[string]bool, len(known.Nodes))
		for _, n := range known.Nodes {
			p.names[n] = true
		}
	}
	chosen := false
	for _, item := range items {
		rest, out := strings.CutPrefix(item, "!")
		chosen = chosen || !out
		if err := p.item(rest, out); err != nil {
			return nil, err
		}
	}
	if !chosen {
		return nil, bad(text, "write *,"+shorten(text)+" for all others", "it only leaves out")
	}
	nodes := slices.DeleteFunc(p.nodes, func(n string) bool { return p.out[n] })
	if len(nodes) == 0 {
		return nil, bad(text, "", "it leaves out every node that it names")
	}
	return nodes, nil
}

func shorten(s string) string {
	if len(s) > 40 {
		return s[:37] + "..."
	}
	return s
}

// split cuts a set at the commas outside of brackets.
func split(text string) ([]string, error) {
	var items []string
	start, open := 0, -1
	for i := 0; i <= len(text); i++ {
		switch {
		case i == len(text) && open >= 0:
			return nil, bad(text[open:], "write n[1-20]", "the bracket is not closed")
		case i == len(text) || text[i] == ',' && open < 0:
			item := strings.TrimSpace(text[start:i])
			if item == "" || item == "!" {
				return nil, bad(text, "write names with one comma between them, such as n[1-3],n7", "a name is missing")
			}
			items, start = append(items, item), i+1
		case text[i] == '[' && open >= 0:
			return nil, bad(text[open:], "write n[1-20]", "a bracket stands inside brackets")
		case text[i] == '[':
			open = i
		case text[i] == ']' && open < 0:
			return nil, bad(text[start:], "write n[1-20]", "a bracket is closed that was not opened")
		case text[i] == ']':
			open = -1
		}
	}
	return items, nil
}

type parser struct {
	known Known
	names map[string]bool // of known.Nodes; nil: any
	nodes []string
	in    map[string]bool // those of nodes
	out   map[string]bool
}

// item adds what one item names, or leaves it out.
func (p *parser) item(item string, out bool) error {
	group, ok := strings.CutPrefix(item, "@")
	switch {
	case item == "*" || item == "@*":
		if p.names == nil {
			return bad(item, "", "all nodes are not known here")
		}
		return p.add(item, p.known.Nodes, out)
	case ok:
		nodes, ok := p.known.Groups[group]
		if !ok {
			return unknown(item, "there is no such group%s", listed(p.known.Groups))
		}
		return p.add(item, nodes, out)
	}
	nodes, err := expand(item)
	if err != nil {
		return err
	}
	if p.names != nil {
		for _, n := range nodes {
			if !p.names[n] {
				return unknown(item, "there is no node %q; the cluster has %s", n, shorten(Fold(p.known.Nodes)))
			}
		}
	}
	return p.add(item, nodes, out)
}

func listed(groups map[string][]string) string {
	if len(groups) == 0 {
		return "; cluster.toml has no [[group]]"
	}
	var names []string
	for name := range groups {
		names = append(names, "@"+name)
	}
	slices.Sort(names)
	return "; there are " + shorten(strings.Join(names, ", "))
}

func (p *parser) add(item string, nodes []string, out bool) error {
	for _, n := range nodes {
		switch {
		case out:
			p.out[n] = true
		case !p.in[n] && len(p.nodes) == MaxNodes:
			return bad(item, "call them in parts", "with it the set has more than %d nodes", MaxNodes)
		case !p.in[n]:
			p.in[n] = true
			p.nodes = append(p.nodes, n)
		}
	}
	return nil
}

// expand returns the names of one item: texts and brackets in turn.
func expand(item string) ([]string, error) {
	names := []string{""}
	for rest := item; rest != ""; {
		text, after, bracket := strings.Cut(rest, "[")
		for i := range names {
			names[i] += text
		}
		if rest = after; !bracket {
			break
		}
		ranges, after, _ := strings.Cut(rest, "]") // split has seen that it is closed
		numbers, err := numbers(item, ranges)
		if err != nil {
			return nil, err
		}
		if len(names)*len(numbers) > MaxNodes {
			return nil, bad(item, "call them in parts", "it has more than %d nodes", MaxNodes)
		}
		next := make([]string, 0, len(names)*len(numbers))
		for _, name := range names {
			for _, n := range numbers {
				next = append(next, name+n)
			}
		}
		names, rest = next, after
	}
	for _, name := range names {
		if !validName(name) {
			return nil, bad(item, "write n[1-20], @group, or !n3 to leave a node out", "%q is no name of a node", shorten(name))
		}
	}
	return names, nil
}

// numbers reads what stands between brackets: 1-3,7,10-20/2.
func numbers(item, ranges string) ([]string, error) {
	var all []string
	for part := range strings.SplitSeq(ranges, ",") {
		part, stepText, stepped := strings.Cut(strings.TrimSpace(part), "/")
		low, high, ranged := strings.Cut(part, "-")
		if !ranged {
			high = low
		}
		from, err1 := number(low)
		to, err2 := number(high)
		step := 1
		var err3 error
		if stepped {
			step, err3 = number(stepText)
		}
		switch {
		case err1 != nil || err2 != nil || err3 != nil || stepped && !ranged:
			return nil, bad(item, "write n[1-20], n[01-20], n[1-20/2] or n[1-3,7]", "%q is no range of numbers of at most %d digits", shorten(part), maxDigits)
		case step == 0:
			return nil, bad(item, "", "a step of 0 never ends")
		case from > to:
			return nil, bad(item, "write the lower end first", "%q runs backwards", part)
		case padded(low) && len(high) < len(low) || padded(high) && len(high) != len(low):
			return nil, bad(item, "write both ends with as many digits, such as 01-20", "the ends of %q have different numbers of digits", part)
		case (to-from)/step >= MaxNodes-len(all):
			return nil, bad(item, "call them in parts", "it has more than %d nodes", MaxNodes)
		}
		width := 0
		if padded(low) {
			width = len(low)
		}
		for n := from; n <= to; n += step {
			all = append(all, digits(n, width))
		}
	}
	return all, nil
}

func number(s string) (int, error) {
	if s == "" || len(s) > maxDigits || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(s)
}

// padded reports whether a number is written with leading zeros.
func padded(s string) bool { return len(s) > 1 && s[0] == '0' }

func digits(n, width int) string { return fmt.Sprintf("%0*d", width, n) }

// validName is the rule for names of nodes; a test sees that package config has
// the same.
func validName(s string) bool {
	if s == "" || len(s) > MaxName || strings.Contains(s, "..") || !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == ""
}

func alnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
