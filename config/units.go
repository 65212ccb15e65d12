package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// unit is a suffix and what one of it is worth.
type unit struct {
	name  string
	worth int64
}

// Largest first: formatting takes the first that divides.
var (
	durationUnits = []unit{
		{"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"m", int64(time.Minute)},
		{"s", int64(time.Second)}, {"ms", int64(time.Millisecond)},
	}
	sizeUnits = []unit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}
)

// parseUnit reads "16MiB" or "16 MiB". A unit is always required: a bare
// number is what people mean differently.
func parseUnit(s string, units []unit) (int64, error) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	name := strings.TrimPrefix(s[digits:], " ")
	if digits == 0 {
		return 0, fmt.Errorf("%q does not begin with a whole number", s)
	}
	if name == "" {
		return 0, fmt.Errorf("%q has no unit", s)
	}
	for _, u := range units {
		if u.name != name {
			continue
		}
		n, err := strconv.ParseInt(s[:digits], 10, 64)
		if err != nil || n > math.MaxInt64/u.worth {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return n * u.worth, nil
	}
	return 0, fmt.Errorf("%q has the unknown unit %q", s, name)
}

func formatUnit(v int64, units []unit) string {
	for _, u := range units {
		if v%u.worth == 0 {
			return strconv.FormatInt(v/u.worth, 10) + u.name
		}
	}
	return strconv.FormatInt(v, 10)
}

func formatDuration(d time.Duration) string { return formatUnit(int64(d), durationUnits) }
func formatSize(n int64) string             { return formatUnit(n, sizeUnits) }

// Nearest is the known word at the smallest edit distance, if that is at most
// a third of its letters: what a typing error was meant to be; else "".
func Nearest(word string, known []string) string {
	best, bound := "", 0
	for _, k := range known {
		d := distance(word, k)
		if d <= max(len(k)/3, 1) && (best == "" || d < bound) {
			best, bound = k, d
		}
	}
	return best
}

// distance is Levenshtein's, in one row. Long words cannot be near any key.
func distance(a, b string) int {
	if len(a) > 2*MaxName {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
