package client_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"gantry/client"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the table of answers into docs/protocol.md")

// People who write another client read the table there; this one acts on it.
func TestProtocolDocumentsEveryAnswer(t *testing.T) {
	const file = "../docs/protocol.md"
	const head = "| answer | before a start was sent | after | asked again |\n| --- | --- | --- | --- |\n"
	var table strings.Builder
	for _, a := range client.Answers {
		again := "no"
		if a.Retry {
			again = "yes"
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", a.Name, a.Unsent, a.Sent, again)
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), head)
	require.True(t, ok, "docs/protocol.md has lost the head of its table of answers")
	got, after, ok := strings.Cut(rest, "\n\n")
	require.True(t, ok)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(before+head+table.String()+"\n"+after), 0o644))
		return
	}
	require.Equal(t, table.String(), got+"\n", "run go test ./client -run Documents -update")
}
