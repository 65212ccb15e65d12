package feedback_test

import (
	"os"
	"testing"

	"gantry/internal/testkit"
)

// TestMain runs the tests, or is the writer that TestKilledWriter kills.
func TestMain(m *testing.M) {
	if path := os.Getenv("FEEDBACK_TEST_JOURNAL"); path != "" {
		if err := writerChild(path); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	testkit.Main(m)
}
