// Package gantry_test holds the rules about the whole tree: which package may
// import which, that each opens with a tour, that no program carries test code.
package gantry_test

import (
	"bytes"
	"encoding/json"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

// floors is the layout: a package imports packages of lower floors only.
// docs/architecture.md explains it. Change it when a better cut is found, in
// the commit that moves the code.
var floors = map[string]int{
	"gantry/feedback":            0,
	"gantry/fastcgi":             0,
	"gantry/internal/atomicfile": 0,
	"gantry/internal/failpoint":  0,
	"gantry/internal/blake3":     0,
	"gantry/lighttpd":            0,
	"gantry/nginx":               0,
	"gantry/nodeset":             0,
	"gantry/api":                 1,
	"gantry/config":              1,
	"gantry/pki":                 1,
	"gantry/transfer":            2,
	"gantry/access":              2,
	"gantry/queue":               2,
	"gantry/client":              3,
	"gantry/progress":            3,
	"gantry/internal/serve":      3,
	"gantry/internal/daemon":     4,
	"gantry/job":                 4,
	"gantry/front":               4,
	"gantry/front/selftest":      4,
	"gantry/node":                5,
	"gantry/master":              5,
	"gantry/internal/cluster":    6,
	"gantry/fcgi-app":            7,
	"gantry/cmd/gantry":          7,
	"gantry/cmd/masterd":         7,
	"gantry/scripts/benchmarks":  7,
}

// within lists the imports inside one floor that the table allows: the
// internals that everything durable stands on.
var within = map[string][]string{
	"gantry/feedback":            {"gantry/internal/atomicfile", "gantry/internal/failpoint"},
	"gantry/internal/atomicfile": {"gantry/internal/failpoint"},
	"gantry/front":               {"gantry/front/selftest"},
}

// testOnly packages may import any floor and be imported by tests only.
var testOnly = []string{"gantry/internal/testkit", "gantry/internal/history", "gantry/front/fronttest"}

func TestMain(m *testing.M) { testkit.Main(m) }

// Every package with tests looks for what they left behind.
func TestEveryPackageChecksForLeaks(t *testing.T) {
	files, err := exec.Command("git", "ls-files", "*_test.go").Output()
	require.NoError(t, err)
	checked := map[string]bool{}
	for name := range strings.FieldsSeq(string(files)) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		checked[filepath.Dir(name)] = checked[filepath.Dir(name)] || strings.Contains(string(text), "testkit.Main(")
	}
	for dir, ok := range checked {
		require.True(t, ok, "%s has tests, but its TestMain is not testkit.Main", dir)
	}
}

type listed struct {
	ImportPath, Dir, Name string
	Imports, Deps         []string
	GoFiles               []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Imports,Deps,GoFiles", "./...")
	out, err := cmd.Output()
	require.NoError(t, err)
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else {
			require.NoError(t, err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
	require.NotEmpty(t, all)
	return all
}

func TestImportsGoDownward(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(testOnly, p.ImportPath) {
			continue
		}
		floor, known := floors[p.ImportPath]
		require.True(t, known, "%s is in no row of the table of floors", p.ImportPath)
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, "gantry/") {
				continue
			}
			require.NotContains(t, testOnly, imported, "%s imports a test-only package", p.ImportPath)
			below, known := floors[imported]
			require.True(t, known, "%s is in no row of the table of floors", imported)
			if below >= floor && !slices.Contains(within[p.ImportPath], imported) {
				t.Errorf("%s (floor %d) imports %s (floor %d)", p.ImportPath, floor, imported, below)
			}
		}
	}
}

func TestProgramsCarryNoTestCode(t *testing.T) {
	for _, p := range packages(t) {
		if p.Name == "main" {
			require.NotContains(t, p.Deps, "testing", "%s", p.ImportPath)
		}
	}
}

func TestResponderStandsAlone(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath != "gantry/fastcgi" {
			continue
		}
		for _, d := range p.Deps {
			require.False(t, strings.HasPrefix(d, "gantry/"), "fastcgi must stay usable by itself, but imports %s", d)
		}
	}
}

// Every package opens with what it is, a sketch of use, and what it is not.
func TestPackagesAreDocumented(t *testing.T) {
	const shortest = 120 // characters: a sentence and a sketch
	for _, p := range packages(t) {
		var text string
		fset := token.NewFileSet()
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			require.NoError(t, err)
			if f.Doc != nil {
				text += f.Doc.Text()
			}
		}
		if len(text) < shortest {
			t.Errorf("%s: package comment of %d characters; say what it is, how it is used and what it is not: %q",
				p.ImportPath, len(text), text)
		}
	}
}

// Every mark of unfinished work would be a promise nobody tracks.
func TestNoUnfinishedMarks(t *testing.T) {
	out, _ := exec.Command("git", "grep", "-nE", "TO"+"DO|FIX"+"ME|XX"+"X", "--", "*.go", "*.sh", "*.tmpl").Output()
	require.Empty(t, string(out))
}
