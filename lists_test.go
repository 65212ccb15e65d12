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
// parameters, C feed lines, D requests, E trees and images,
// F jobs, G certificates, H configuration, I the command line. A test that covers
// an entry carries its number in its name ("A8 …"), a part of a script in its
// heading ("# I134 …"). docs/architecture.md prints the catalogue.
var catalogue = []struct {
	letter      string
	first, last int
}{
	{"A", 1, 18}, {"B", 19, 34}, {"C", 35, 53}, {"D", 54, 66}, {"E", 67, 91},
	{"F", 92, 105}, {"G", 106, 121}, {"H", 122, 133}, {"I", 134, 143},
}

// deviations are entries without a test of their own, and why.
var deviations = map[string]string{
	"F100": "what has a timeout is a call: see TestCallsThatCannotBeMeant",
	"H128": "a responder listens on no port; its socket is TestSocketsHaveTheirModes, the front's ports are the front's",
	"D63":  "what is pushed has no digest of its own: the import proves each piece and asks for a wrong one again, see TestLyingPusher",
	"G111": "nobody can ask for a certificate: the CA makes the key with it, see TestIssuedCertificates",
	"G112": "as G111: roles, names and lifetimes are the CA's, see TestNames and TestLifeIsBounded",
	"G114": "as G111: each certificate gets a key of its own",
	"G115": "there are no enrolment tokens",
	"G116": "nothing is renewed by itself: the administrator of the CA issues another",
	"G121": "no peer can bring a certificate; all that it can bring is a list with the CA's signature, see TestPut",
	"H133": "nothing is read again while it runs: check judges a file before the restart, see TestConfigurationIsExplained",
	"I141": "there is one version; what a newer one adds to records and replies is ignored, see C41",
	"I143": "no command and no flag takes a secret: keys are files and tickets are drawn",
	"E89":  "a codec is one byte of a frame, and every one but two is refused: see TestFramesHostileSource",
}

var numbered = regexp.MustCompile("(?m:[\"`]|^# )([A-I])([0-9]+) ")

func TestEveryCatalogueEntryHasATest(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") && filepath.Ext(path) != ".txtar" && !strings.HasPrefix(path, filepath.Join("front", "fronttest")) {
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
