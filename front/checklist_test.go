package front

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// row is a check as docs/protocol.md describes it.
func row(c checkItem) string {
	cell := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
	}
	return fmt.Sprintf("| %s | %s | %s | %s |", c.name, c.what, cell(c.mend.lighttpd), cell(c.mend.nginx))
}

func TestChecksAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/protocol.md")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, c := range checklist {
		require.False(t, names[c.name], "%s stands twice", c.name)
		names[c.name] = true
		require.Contains(t, string(text), row(c)+"\n", "docs/protocol.md lacks the row")
	}
	require.GreaterOrEqual(t, len(checklist), 25)
}
