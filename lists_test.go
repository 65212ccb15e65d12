package gantry_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The catalogue of bad input, by letter: A FastCGI records, B FastCGI
// parameters, C feed lines, D requests. A test that covers an entry carries
// its number in its name ("A8 …"). docs/architecture.md prints the catalogue.
var catalogue = []struct {
	letter      string
	first, last int
}{
	{"A", 1, 18}, {"B", 19, 34}, {"C", 35, 53}, {"D", 54, 62}, {"D", 66, 66},
}

// deviations are entries without a test of their own, and why.
var deviations = map[string]string{}

var numbered = regexp.MustCompile("[\"`]([A-I])([0-9]+) ")

func TestEveryCatalogueEntryHasATest(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(path, filepath.Join("front", "fronttest")) {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range numbered.FindAllStringSubmatch(string(text), -1) {
			seen[m[1]+m[2]] = true
		}
		return err
	})
	require.NoError(t, err)
	for _, list := range catalogue {
		for n := list.first; n <= list.last; n++ {
			entry := list.letter + strconv.Itoa(n)
			if reason, ok := deviations[entry]; ok {
				require.False(t, seen[entry], "%s has a test; take it out of the deviations", entry)
				t.Logf("%s: %s", entry, reason)
				continue
			}
			if !seen[entry] {
				t.Errorf("no test carries %s in its name", entry)
			}
		}
	}
}
