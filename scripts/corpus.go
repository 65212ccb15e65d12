//go:build ignore

// Corpus shows how much of each parser its committed fuzz corpus alone
// reaches, and fails under the floor: a fuzz target that starts from nothing
// finds nothing in five seconds.
//
//	go run scripts/corpus.go
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// floor is the least share of a parser's statements, in percent.
const floor = 80

// parsers maps each fuzz target to the files that it must reach.
var parsers = []struct{ pkg, target, files string }{
	{"fastcgi", "FuzzRecords", "record.go dispatch.go management.go"},
	{"fastcgi", "FuzzParams", "params.go request.go"},
	{"feedback", "FuzzReader", "codec.go reader.go"},
	{"transfer", "FuzzManifest", "manifest.go"},
	{"config", "FuzzNodeConfig", "document.go table.go values.go units.go node.go"},
	{"pki", "FuzzPEM", "pem.go"},
	{"node", "FuzzRange", "range.go"},
}

func main() {
	ok := true
	for _, p := range parsers {
		profile := filepath.Join(os.TempDir(), fmt.Sprintf("gantry-corpus-%d.out", os.Getpid()))
		out, err := exec.Command("go", "test", "-run", "^"+p.target+"$", "-coverprofile", profile, "./"+p.pkg).CombinedOutput()
		if err != nil {
			fmt.Printf("%s %s: %v\n%s", p.pkg, p.target, err, out)
			ok = false
			continue
		}
		for file := range strings.FieldsSeq(p.files) {
			got := covered(profile, "/"+p.pkg+"/"+file)
			mark := "ok"
			if got < floor {
				mark, ok = "UNDER THE FLOOR", false
			}
			fmt.Printf("corpus %-16s %-24s %5.1f%% %s\n", p.target, p.pkg+"/"+file, got, mark)
		}
		os.Remove(profile)
	}
	if !ok {
		os.Exit(1)
	}
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
