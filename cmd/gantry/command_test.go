package main

import (
	"strings"
	"testing"

	"gantry/api"
	"gantry/job"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// TestCommandOf: the flags that a job is shown with ask for the same job.
func TestCommandOf(t *testing.T) {
	all := []string{
		"--replace", "--keep-old", "--dry-run", "--extraneous", "delete", "--expect", "b3:" + strings.Repeat("0", 64), "--verify", "disk",
		"--checksum", "--bwlimit", "1536K", "--parallel", "3", "--compress", "off", "--filter", "+ a", "--filter", "- it's *.o", "--arg", "db=mail", "--target-arg", "to=x y",
	}
	for _, args := range [][]string{all, nil, {"--update", "--trust-mtime", "--resume", api.NewID()}, {"--bwlimit", "70001B"}} {
		var m moving
		cmd := &cobra.Command{}
		m.flags(cmd)
		m.targetFlags(cmd)
		require.NoError(t, cmd.ParseFlags(args))
		spec, err := m.spec(cmd, job.Copy)
		require.NoError(t, err)
		spec.From, spec.To = job.Place{Node: "a", File: api.File{Resource: "r"}}, job.Place{Node: "b", File: api.File{Resource: "r"}}
		var want strings.Builder
		want.WriteString("copy a:r b:r")
		for _, a := range args {
			want.WriteString(" " + quoted(a))
		}
		require.Equal(t, want.String(), commandOf(spec))
	}
	require.Equal(t, `'it'\''s'`, quoted("it's"))
	require.Equal(t, `''`, quoted(""))
	require.Equal(t, "digest a:r/x --full", commandOf(job.Spec{Kind: job.Digest, From: job.Place{Node: "a", File: api.File{Resource: "r", Path: "x"}}, Full: true}))
}
