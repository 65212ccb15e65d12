package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// table reads the keys of one TOML table, once each. What is wrong is added to
// the document's problems, and what is right is returned: a file's problems
// are told all at once. finish reports the keys that nobody asked for.
type table struct {
	doc   *document
	path  string
	m     map[string]any
	known []string
}

func (d *document) table() *table { return &table{doc: d, m: d.root} }

// problem records that a key's value is wrong.
func (t *table) problem(key, allowed, example, format string, args ...any) {
	path := t.path
	if key != "" {
		path = join(path, key)
	}
	t.doc.problems = append(t.doc.problems, &Error{
		File: t.doc.file, Line: t.doc.line(path), Key: path,
		Problem: fmt.Sprintf(format, args...), Allowed: allowed, Example: example,
	})
}

// value takes a key's raw value.
func (t *table) value(key string) (any, bool) {
	t.known = append(t.known, key)
	v, ok := t.m[key]
	return v, ok
}

// typed takes a key of a Go type; the zero value and false if it is missing or
// of another type.
func typed[T any](t *table, key, word, example string) (T, bool) {
	v, ok := t.value(key)
	if !ok {
		var zero T
		return zero, false
	}
	typed, ok := v.(T)
	if !ok {
		t.problem(key, word, example, "is %s", kindOf(v))
	}
	return typed, ok
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a text"
	case int64:
		return "a number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}

// text takes a text that must be there and not empty.
func (t *table) text(key, allowed, example string) (string, bool) {
	s, ok := typed[string](t, key, allowed, example)
	if _, there := t.m[key]; !there {
		t.problem(key, allowed, example, "is missing")
	}
	if ok && s == "" {
		t.problem(key, allowed, example, "is empty")
		return "", false
	}
	return s, ok
}

// optional takes a text or its default.
func (t *table) optional(key, fallback, allowed, example string) string {
	if _, there := t.m[key]; !there {
		t.value(key)
		return fallback
	}
	s, _ := t.text(key, allowed, example)
	return s
}

func (t *table) bool(key string) bool {
	v, _ := typed[bool](t, key, "true or false", key+" = true")
	return v
}

// count takes a whole number of at least low.
func (t *table) count(key string, fallback, low, high int) int {
	allowed := fmt.Sprintf("%d to %d", low, high)
	example := fmt.Sprintf("%s = %d", key, fallback)
	n, ok := typed[int64](t, key, allowed, example)
	if !ok {
		return fallback
	}
	if n < int64(low) || n > int64(high) {
		t.problem(key, allowed, example, "is %d", n)
		return fallback
	}
	return int(n)
}

// duration takes a time with its unit.
func (t *table) duration(key string, fallback, high time.Duration) time.Duration {
	const allowed = "a whole number above 0 with unit ms, s, m, h or d"
	example := fmt.Sprintf("%s = %q", key, formatDuration(fallback))
	s, ok := typed[string](t, key, allowed, example)
	if !ok {
		return fallback
	}
	v, err := parseUnit(s, durationUnits)
	if err != nil {
		t.problem(key, allowed, example, "%v", err)
		return fallback
	}
	if v <= 0 || v > int64(high) {
		t.problem(key, "above 0, at most "+formatDuration(high), example, "is %q", s)
		return fallback
	}
	return time.Duration(v)
}

// size takes a number of bytes with its unit.
func (t *table) size(key string, fallback int64) int64 {
	const allowed = "a whole number above 0 with unit B, KiB, MiB, GiB or TiB"
	example := fmt.Sprintf("%s = %q", key, formatSize(fallback))
	s, ok := typed[string](t, key, allowed, example)
	if !ok {
		return fallback
	}
	v, err := parseUnit(s, sizeUnits)
	if err != nil {
		t.problem(key, allowed, example, "%v", err)
		return fallback
	}
	if v <= 0 || v > maxSize {
		t.problem(key, "above 0, at most "+formatSize(maxSize), example, "is %q", s)
		return fallback
	}
	return v
}

// rate takes an optional bandwidth; 0 means none.
func (t *table) rate(key string) int64 {
	example := key + ` = "50M"`
	s := t.optional(key, "", RateAllowed, example)
	if s == "" {
		return 0
	}
	n, err := ParseRate(s)
	if err != nil {
		t.problem(key, RateAllowed, example, "%v", err)
	}
	return n
}

// texts takes a list of texts; check may be nil.
func (t *table) texts(key, allowed, example string, check func(string) error) []string {
	list, _ := typed[[]any](t, key, "a list: "+allowed, example)
	var all []string
	for i, v := range list {
		element := fmt.Sprintf("%s[%d]", key, i)
		s, ok := v.(string)
		switch {
		case !ok:
			t.problem(element, allowed, example, "is %s", kindOf(v))
			continue
		case slices.Contains(all, s):
			t.problem(element, "each once", "", "%q stands there twice", s)
			continue
		}
		if check != nil {
			if err := check(s); err != nil {
				t.problem(element, allowed, example, "%v", err)
				continue
			}
		}
		all = append(all, s)
	}
	return all
}

// sub takes a table; a missing one is empty.
func (t *table) sub(key string) *table {
	m, _ := typed[map[string]any](t, key, "a table", "["+join(t.path, key)+"]")
	return &table{doc: t.doc, path: join(t.path, key), m: m}
}

// each takes a list of tables.
func (t *table) each(key string, read func(*table)) {
	list, _ := typed[[]any](t, key, "tables", "[["+join(t.path, key)+"]]")
	for i, v := range list {
		element := fmt.Sprintf("%s[%d]", key, i)
		m, ok := v.(map[string]any)
		if !ok {
			t.problem(element, "a table", "[["+join(t.path, key)+"]]", "is %s", kindOf(v))
			continue
		}
		read(&table{doc: t.doc, path: join(t.path, element), m: m})
	}
}

// reserve refuses a key whose meaning is decided but does not exist yet.
func (t *table) reserve(key, why string) {
	if _, there := t.m[key]; there {
		t.problem(key, "", "", "is reserved: %s", why)
	}
}

// finish reports unknown keys, with the known ones and the nearest.
func (t *table) finish(reserved ...string) {
	for _, key := range slices.Sorted(maps.Keys(t.m)) {
		if slices.Contains(t.known, key) || slices.Contains(reserved, key) {
			continue
		}
		meant := ""
		if near := Nearest(key, t.known); near != "" {
			meant = ", did you mean " + near + "?"
		}
		t.problem(key, strings.Join(t.known, ", "), "", "is unknown%s", meant)
	}
}

// oneOf takes a text out of a closed set; fallback "" means it must be there.
func (t *table) oneOf(key, fallback string, set []string, reserved []string) string {
	allowed := strings.Join(set, ", ")
	example := fmt.Sprintf("%s = %q", key, set[0])
	s := fallback
	if fallback == "" {
		s, _ = t.text(key, allowed, example)
	} else {
		s = t.optional(key, fallback, allowed, example)
	}
	switch {
	case s == "" || slices.Contains(set, s):
	case slices.Contains(reserved, s):
		t.problem(key, allowed, example, "%q is reserved, it does not work yet", s)
	default:
		t.problem(key, allowed, example, "%q is unknown", s)
	}
	return s
}

// octal takes permission bits.
func (t *table) octal(key string, fallback uint32) uint32 {
	const allowed = "octal permission bits in quotes, without setuid, setgid and sticky"
	example := fmt.Sprintf("%s = \"%04o\"", key, fallback)
	s, ok := typed[string](t, key, allowed, example)
	if !ok {
		return fallback
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n == 0 || n > 0o777 || !strings.HasPrefix(s, "0") {
		t.problem(key, allowed, example, "%q is no such mode", s)
		return fallback
	}
	return uint32(n)
}
