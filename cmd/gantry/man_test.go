package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The manual has every command that help shows, says every key of the
// configuration as it is written, and is the same whenever it is built.
func TestManual(t *testing.T) {
	write := func() string {
		dir := t.TempDir()
		var stderr bytes.Buffer
		e := &env{Stdout: io.Discard, Stderr: &stderr, Now: time.Now, Getenv: func(name string) string {
			return map[string]string{"SOURCE_DATE_EPOCH": "1700000000"}[name]
		}}
		require.Zero(t, run(t.Context(), e, []string{"__man", dir}), stderr.String())
		return dir
	}
	one, two := write(), write()
	pages, err := filepath.Glob(filepath.Join(one, "*"))
	require.NoError(t, err)
	require.Greater(t, len(pages), 20)
	for _, p := range pages {
		a, err := os.ReadFile(p)
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(two, filepath.Base(p)))
		require.NoError(t, err)
		require.Equal(t, string(a), string(b), "two runs give other bytes")
		require.NotContains(t, string(a), "__", "a hidden command is in %s", p)
	}
	for _, name := range []string{"gantry.1", "gantry-copy.1", "gantry-front-check.1", "node.toml.5", "master.toml.5", "cluster.toml.5"} {
		require.FileExists(t, filepath.Join(one, name))
	}
	page, err := os.ReadFile(filepath.Join(one, "gantry-copy.1"))
	require.NoError(t, err)
	require.Contains(t, string(page), `"Nov 2023"`, "the date is the source's, not today's")
	rendered(t, filepath.Join(one, "node.toml.5"), `argv = ["/usr/bin/pg_dump", "--format=custom", "{db}"]`, "what users write")
	rendered(t, filepath.Join(one, "master.toml.5"), `socket = "/run/gantry-master/fcgi.sock"`, "so that whoever breaks into it cannot speak for the master's")
}

// rendered lets groff format a configuration file's page: no warning, and
// lines of the example arrive.
func rendered(t *testing.T, page string, lines ...string) {
	t.Helper()
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("groff is not installed: the page is not formatted")
	}
	var complaints strings.Builder
	cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-rLL=200n", "-P-cbou", page)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	require.NoError(t, err)
	require.Empty(t, complaints.String())
	for _, line := range lines {
		require.Contains(t, string(out), line)
	}
}
