package history_test

import (
	"testing"

	"gantry/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
