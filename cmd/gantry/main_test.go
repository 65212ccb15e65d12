package main

import (
	"os"
	"path/filepath"
	"testing"

	"gantry/internal/testkit"
)

// TestMain lets the test binary be gantry under that name: scripts, and the
// servers of a throw-away cluster, run it.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "gantry" {
		os.Exit(start())
	}
	testkit.Main(m)
}
