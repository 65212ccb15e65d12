package nodeset

import (
	"cmp"
	"slices"
	"strings"
)

// Fold writes names as a set, as short as ranges make it: n[1-3,7]. The order
// of the names does not matter; a name that stands twice counts once. No names
// are "".
func Fold(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	var all []*pattern
	most := 0
	for _, name := range slices.Compact(names) {
		p := cut(name)
		most = max(most, len(p.numbers))
		all = append(all, p)
	}
	// From the last number to the first: what is equal but for one number
	// becomes one pattern. Patterns that were folded so may be equal again in all
	// but an earlier one: racks of equally many nodes.
	for at := most - 1; at >= 0; at-- {
		all = merge(all, at)
	}
	slices.SortStableFunc(all, compare)
	texts := make([]string, len(all))
	for i, p := range all {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}

// A pattern is a name cut at its numbers: texts[0] numbers[0] texts[1] …, where
// numbers are what stands in brackets.
type pattern struct {
	texts   []string
	numbers [][]string
}

// cut finds the numbers of a name. One of too many digits is text.
func cut(name string) *pattern {
	p := &pattern{}
	text := 0
	for i := 0; i < len(name); {
		end := i
		for end < len(name) && '0' <= name[end] && name[end] <= '9' {
			end++
		}
		switch {
		case end == i:
			i++
			continue
		case end-i <= maxDigits:
			p.texts = append(p.texts, name[text:i])
			p.numbers = append(p.numbers, []string{name[i:end]})
			text = end
		}
		i = end
	}
	p.texts = append(p.texts, name[text:])
	return p
}

// merge joins the patterns that are equal but for their number `at`.
func merge(all []*pattern, at int) []*pattern {
	var out []*pattern
	first := map[string]*pattern{}
	for _, p := range all {
		if at >= len(p.numbers) {
			out = append(out, p)
			continue
		}
		key := p.but(at)
		if same := first[key]; same != nil {
			same.numbers[at] = append(same.numbers[at], p.numbers[at]...)
			continue
		}
		first[key] = p
		out = append(out, p)
	}
	return out
}

// but is the pattern without its number `at`.
func (p *pattern) but(at int) string {
	var b strings.Builder
	for i, text := range p.texts {
		b.WriteString(text)
		if i == at {
			b.WriteByte('*')
		} else if i < len(p.numbers) {
			b.WriteByte('[')
			b.WriteString(ranges(p.numbers[i]))
			b.WriteByte(']')
		}
	}
	return b.String()
}

func (p *pattern) String() string {
	var b strings.Builder
	for i, text := range p.texts {
		b.WriteString(text)
		switch {
		case i == len(p.numbers):
		case len(p.numbers[i]) == 1:
			b.WriteString(p.numbers[i][0])
		default:
			b.WriteString("[" + ranges(p.numbers[i]) + "]")
		}
	}
	return b.String()
}

// ranges writes numbers, each as it is spelt, as ranges.
func ranges(spelt []string) string {
	spelt = slices.Clone(spelt)
	slices.SortFunc(spelt, compareNumbers)
	left := make(map[string]bool, len(spelt))
	for _, s := range spelt {
		left[s] = true
	}
	var parts []string
	for _, low := range spelt {
		if !left[low] {
			continue
		}
		width := 0
		if padded(low) {
			width = len(low)
		}
		high := low
		for n, _ := number(low); ; {
			delete(left, high)
			n++
			next := digits(n, width)
			if len(next) > maxDigits || !left[next] {
				break
			}
			high = next
		}
		switch {
		case low == high:
			parts = append(parts, low)
		default:
			parts = append(parts, low+"-"+high)
		}
	}
	return strings.Join(parts, ",")
}

func compareNumbers(a, b string) int {
	m, _ := number(a)
	n, _ := number(b)
	// 01 before 1: what is padded goes on over the ends of its digits
	return cmp.Or(cmp.Compare(m, n), cmp.Compare(len(b), len(a)))
}

// compare orders patterns as people do: by text, then by first number.
func compare(a, b *pattern) int {
	for i := range min(len(a.texts), len(b.texts)) {
		if c := cmp.Compare(a.texts[i], b.texts[i]); c != 0 {
			return c
		}
		if i < min(len(a.numbers), len(b.numbers)) {
			if c := compareNumbers(a.numbers[i][0], b.numbers[i][0]); c != 0 {
				return c
			}
		}
	}
	return cmp.Compare(len(a.texts), len(b.texts))
}
