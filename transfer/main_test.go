package transfer_test

import (
	"os"
	"testing"

	"gantry/internal/testkit"
)

// TestMain runs the tests, or is the importer that the kill tests kill.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	testkit.Main(m)
}
