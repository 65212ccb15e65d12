//go:build ignore

// Corpus shows how much of each parser its committed fuzz corpus alone
// reaches, and fails under the floor: a fuzz target that starts from nothing
// finds nothing in five seconds.
//
//	go run scripts/corpus.go
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// floor is the least share of a parser's statements, in percent.
const floor = 80

// parsers maps each fuzz target to the files that it must reach.
var parsers = []struct{ pkg, target, files string }{
	{"fastcgi", "FuzzRecords", "record.go dispatch.go management.go"},
	{"fastcgi", "FuzzParams", "params.go request.go"},
	{"feedback", "FuzzReader", "codec.go reader.go"},
	{"queue", "FuzzLog", "wal.go"},
	{"transfer", "FuzzManifest", "manifest.go"},
	{"transfer", "FuzzSub", "subreader.go"},
	{"transfer", "FuzzFrames", "framereader.go"},
	{"transfer", "FuzzTreeManifest", "treemanifest.go treecursor.go treedigest.go"},
	{"transfer", "FuzzTreeIndex", "treeindex.go"},
	{"transfer", "FuzzPlainLine", "treeplain.go"},
	{"transfer", "FuzzFilter", "filter.go"},
	{"transfer", "FuzzPath", "path.go"},
	{"config", "FuzzNodeConfig", "document.go table.go values.go units.go node.go freeze.go"},
	{"config", "FuzzMasterConfig", "master.go"},
	{"config", "FuzzCommand", "command.go"},
	{"config", "FuzzRate", "rate.go"},
	{"nodeset", "FuzzParse", "parse.go fold.go"},
	{"pki", "FuzzPEM", "pem.go"},
	{"master", "FuzzCursor", "cursor.go"},
	{"master", "FuzzQuery", "query.go"},
	{"master", "FuzzJobBody", "spec.go"},
	{"master", "FuzzRecords", "recordlines.go"},
	{"node", "FuzzTaskBody", "request.go options.go"},
	{"node", "FuzzRange", "range.go"},
	{"node", "FuzzACL", "acl.go"},
	{"node", "FuzzPieces", "piecelist.go"},
	{"node", "FuzzContentRange", "contentrange.go"},
	{"internal/history", "FuzzHistory", "read.go past.go model.go calls.go feeds.go effects.go check.go"},
}

func main() {
	dir, err := os.MkdirTemp("", "gantry-corpus-")
	if err == nil {
		err = measure(dir)
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// measure builds each package once, runs its targets, and prints what they reach.
func measure(dir string) error {
	build := []string{"test", "-c", "-cover", "-o", dir + "/"}
	for _, p := range parsers {
		if pkg := "./" + p.pkg; !slices.Contains(build, pkg) {
			build = append(build, pkg)
		}
	}
	if out, err := exec.Command("go", build...).CombinedOutput(); err != nil {
		return fmt.Errorf("building the tests: %w\n%s", err, out)
	}
	var bad error
	for _, p := range parsers {
		profile := filepath.Join(dir, p.target+".out")
		cmd := exec.Command(filepath.Join(dir, path.Base(p.pkg)+".test"), "-test.run", "^"+p.target+"$", "-test.coverprofile", profile)
		cmd.Dir = p.pkg
		if out, err := cmd.CombinedOutput(); err != nil {
			bad = errors.Join(bad, fmt.Errorf("%s %s: %w\n%s", p.pkg, p.target, err, out))
			continue
		}
		for file := range strings.FieldsSeq(p.files) {
			got := covered(profile, "/"+p.pkg+"/"+file)
			fmt.Printf("corpus %-16s %-24s %5.1f%%\n", p.target, p.pkg+"/"+file, got)
			if got < floor {
				bad = errors.Join(bad, fmt.Errorf("corpus %s reaches %.1f%% of %s/%s, and %d%% is the least", p.target, got, p.pkg, file, floor))
			}
		}
	}
	return bad
}

// covered is the share of a file's statements that ran, in percent.
func covered(profile, file string) float64 {
	f, err := os.Open(profile)
	if err != nil {
		return 0
	}
	defer f.Close()
	total, hit := 0, 0
	for in := bufio.NewScanner(f); in.Scan(); {
		place, counts, _ := strings.Cut(in.Text(), " ")
		name, _, _ := strings.Cut(place, ":")
		var statements, times int
		if n, _ := fmt.Sscan(counts, &statements, &times); n != 2 || !strings.HasSuffix(name, file) {
			continue
		}
		total += statements
		if times > 0 {
			hit += statements
		}
	}
	if total == 0 {
		return 0
	}
	return 100 * float64(hit) / float64(total)
}
