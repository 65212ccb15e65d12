package api_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the table of codes into docs/protocol.md")

const protocol = "../docs/protocol.md"

func table() string {
	var b strings.Builder
	for _, c := range api.Codes {
		fmt.Fprintf(&b, "| `%s` | %s | %d | %d | %t | %s |\n", c.Name, c.Outcome, c.Status, c.Exit, c.Retryable, c.Remedy)
	}
	return b.String()
}

const head = "| code | outcome | HTTP | exit | retryable | remedy |\n| --- | --- | --- | --- | --- | --- |\n"

func TestProtocolDocumentsEveryCode(t *testing.T) {
	text, err := os.ReadFile(protocol)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(text), head)
	require.True(t, ok, "docs/protocol.md has lost the head of its table of codes")
	_, after, ok := strings.Cut(rest, "\n\n")
	require.True(t, ok)
	if *update {
		require.NoError(t, os.WriteFile(protocol, []byte(before+head+table()+"\n"+after), 0o644))
		return
	}
	require.Equal(t, table()+"\n", rest[:len(rest)-len(after)-1]+"\n", "run go test ./api -update")
}

func TestCodesAreConsistent(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range api.Codes {
		require.False(t, seen[c.Name], "%s stands twice", c.Name)
		seen[c.Name] = true
		require.Same(t, c, api.CodeOf(c.Name))
		require.GreaterOrEqual(t, c.Status, 400, c.Name)
		switch c.Outcome {
		case api.Refused, api.PinMismatch:
			require.Contains(t, []int{api.ExitRefused, api.ExitMisuse, api.ExitNotFound}, c.Exit, c.Name)
		case api.Failed, api.Cancelled, api.Unreachable, api.NotTried:
			require.Equal(t, api.ExitFailed, c.Exit, c.Name)
		case api.Unknown:
			require.Equal(t, api.ExitUnknown, c.Exit, c.Name)
		default:
			t.Errorf("%s: outcome %s is not one that a code may mean", c.Name, c.Outcome)
		}
	}
	require.Same(t, api.Internal, api.CodeOf("a code of the year 2030"))
}

func TestDecodeIsStrict(t *testing.T) {
	for name, body := range map[string]string{
		"unknown field":       `{"seq":1,"more":2}`,
		"field twice":         `{"seq":1,"seq":2}`,
		"field in other case": `{"Seq":1}`,
		"trailing data":       `{"seq":1} {}`,
		"wrong type":          `{"seq":"1"}`,
		"cut":                 `{"seq":`,
	} {
		t.Run(name, func(t *testing.T) {
			var a api.Ack
			require.Error(t, api.DecodeBytes([]byte(body), &a))
		})
	}
	var a api.Ack
	require.NoError(t, api.DecodeBytes([]byte(`{"seq":7}`), &a))
	require.EqualValues(t, 7, a.Seq)
}

func TestRoutesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(protocol)
	require.NoError(t, err)
	for _, r := range slices.Concat(api.Routes, api.MasterRoutes) {
		require.Contains(t, string(text), "| "+r.Name+" | ", "docs/protocol.md has no row for %s", r.Name)
	}
}
