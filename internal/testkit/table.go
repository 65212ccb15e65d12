package testkit

import (
	"os"
	"strings"
	"testing"
)

// Table reads the rows of a table in a Markdown file that begins with this head,
// without the spaces around its cells.
func Table(t testing.TB, file, head string) [][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), head+"\n")
	if !ok {
		t.Fatalf("%s has lost its table %s", file, head)
	}
	var rows [][]string
	for line := range strings.Lines(rest) {
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !ok {
			break
		}
		if strings.HasPrefix(line, " ---") {
			continue
		}
		var row []string
		for cell := range strings.SplitSeq(strings.TrimSuffix(line, "|"), "|") {
			row = append(row, strings.TrimSpace(cell))
		}
		rows = append(rows, row)
	}
	return rows
}
