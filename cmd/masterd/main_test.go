package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"gantry/internal/daemon"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestMisuse(t *testing.T) {
	for _, args := range [][]string{{"serve"}, {"check"}, {"probe"}, {"check", "a", "b"}, {"backup", "a"}, {"restore", "a"}, {"check-store"}, {"version", "x"}, {"--verbose"}, {"--config"}} {
		var out, complaints bytes.Buffer
		err := program.Run(t.Context(), args, &out, &complaints)
		require.ErrorIs(t, err, daemon.ErrMisuse, "%q", args)
		require.Empty(t, out.String())
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, program.Run(t.Context(), []string{"version"}, &out, &out))
	require.NotEmpty(t, out.String())
}

func TestConfigurationIsExplained(t *testing.T) {
	path := filepath.Join(testkit.Dir(t), "master.toml")
	require.NoError(t, os.WriteFile(path, []byte("name = \"hub\"\ncolour = \"red\"\n"), 0o644))
	for _, args := range [][]string{{"check", path}, {"probe", path}, {"check-store", path}, {"backup", path, "x"}, {"restore", path, "x"}} {
		var out bytes.Buffer
		err := program.Run(t.Context(), args, &out, &out)
		require.ErrorContains(t, err, path+":2: colour")
		require.False(t, errors.Is(err, daemon.ErrMisuse))
	}
	if os.Getuid() == 0 {
		var out bytes.Buffer
		require.ErrorContains(t, program.Run(t.Context(), []string{"--config", path}, &out, &out), "never runs as root")
	}
}
