package node_test

import (
	"encoding/json"
	"os"
	"testing"

	"gantry/internal/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childMode {
		os.Exit(child(os.Args[2:]))
	}
	testkit.Main(m)
}

func jsonUnmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }
