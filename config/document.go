package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	toml "github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is a parsed file: its values, and the line of every key.
type document struct {
	file     string
	root     map[string]any
	lines    map[string]int // by key as errors print it
	starts   []int          // offset of each line
	problems Errors
}

// parse reads TOML 1.0. Its grammar already refuses a key that is given twice;
// what is refused beyond it is what editors slip in unseen.
func parse(file string, data []byte) (*document, error) {
	d := &document{file: file, lines: map[string]int{}, starts: []int{0}}
	for i, c := range data {
		if c == '\n' {
			d.starts = append(d.starts, i+1)
		}
	}
	if err := d.checkText(data); err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(data, &d.root); err != nil {
		return nil, d.syntax(err)
	}
	d.locate(data)
	return d, nil
}

// checkText refuses a byte order mark, tabs outside of comments, bytes that
// are no UTF-8, and files that are too long. Lines may end in CR LF.
func (d *document) checkText(data []byte) error {
	problem := func(line int, what, allowed string) error {
		return Errors{{File: d.file, Line: line, Problem: what, Allowed: allowed}}
	}
	if len(data) > MaxFile {
		return problem(1, fmt.Sprintf("the file is longer than %d bytes", MaxFile), "")
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return problem(1, "the file begins with a byte order mark", "UTF-8 without one; save it again as plain UTF-8")
	}
	for i, line := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(line) {
			return problem(i+1, "the line is not UTF-8", "UTF-8 text")
		}
		code, _, _ := bytes.Cut(line, []byte("#"))
		if bytes.ContainsRune(code, '\t') {
			return problem(i+1, "the line contains a tab", "spaces")
		}
	}
	return nil
}

// syntax turns the library's error into ours.
func (d *document) syntax(err error) error {
	var decode *toml.DecodeError
	if !errors.As(err, &decode) {
		return Errors{{File: d.file, Line: 1, Problem: strings.TrimPrefix(err.Error(), "toml: ")}}
	}
	line, _ := decode.Position()
	return Errors{{File: d.file, Line: line, Key: strings.Join(decode.Key(), "."), Problem: strings.TrimPrefix(decode.Error(), "toml: ")}}
}

// locate records the line of every key, walking the same text with the parser
// that the decoder is made of: the decoder itself forgets positions.
func (d *document) locate(data []byte) {
	var p unstable.Parser
	p.Reset(data)
	arrays := map[string]int{} // how many [[tables]] of a name were seen
	prefix := ""
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			prefix = d.locateTable(e, arrays)
		case unstable.KeyValue:
			d.locateValue(e, prefix)
		}
	}
}

// locateTable returns the path of a table header, "resource[1]" for the second
// [[resource]].
func (d *document) locateTable(e *unstable.Node, arrays map[string]int) string {
	path, line := "", 0
	for k := e.Key(); k.Next(); {
		path = join(path, string(k.Node().Data))
		line = d.lineAt(int(k.Node().Raw.Offset))
		if n := arrays[path]; n > 0 && !(e.Kind == unstable.ArrayTable && k.IsLast()) {
			path = fmt.Sprintf("%s[%d]", path, n-1)
		}
	}
	if e.Kind == unstable.ArrayTable {
		d.note(path, line)
		arrays[path]++
		path = fmt.Sprintf("%s[%d]", path, arrays[path]-1)
	}
	d.note(path, line)
	return path
}

func (d *document) locateValue(e *unstable.Node, prefix string) {
	path, line := prefix, 0
	for k := e.Key(); k.Next(); {
		path = join(path, string(k.Node().Data))
		line = d.lineAt(int(k.Node().Raw.Offset))
		d.note(path, line)
	}
	d.locateElements(e.Value(), path, line)
}

func (d *document) locateElements(v *unstable.Node, path string, line int) {
	switch v.Kind {
	case unstable.InlineTable:
		for c := v.Children(); c.Next(); {
			d.locateValue(c.Node(), path)
		}
	case unstable.Array:
		i := 0
		for c := v.Children(); c.Next(); i++ {
			element := fmt.Sprintf("%s[%d]", path, i)
			at := line
			if raw := c.Node().Raw; raw.Length > 0 {
				at = d.lineAt(int(raw.Offset))
			}
			d.note(element, at)
			d.locateElements(c.Node(), element, at)
		}
	}
}

// note keeps the first line of a key.
func (d *document) note(path string, line int) {
	if _, seen := d.lines[path]; !seen {
		d.lines[path] = line
	}
}

func (d *document) lineAt(offset int) int {
	i, found := slices.BinarySearch(d.starts, offset)
	if found {
		return i + 1
	}
	return i
}

// line finds a key's line, or that of the nearest table around it.
func (d *document) line(path string) int {
	for path != "" {
		if n, ok := d.lines[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 1
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}
