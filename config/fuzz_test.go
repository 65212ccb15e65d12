package config_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/config"
)

// FuzzNodeConfig reads any text as either file. Whatever is accepted keeps the
// promises that other packages build on; whatever is refused is refused by
// lines that stand in the text.
func FuzzNodeConfig(f *testing.F) {
	f.Add([]byte(config.ExampleNode()))
	f.Add([]byte(config.ExampleCluster()))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := config.ParseNode("f", data)
		if err != nil {
			checkErrors(t, data, err)
		} else {
			checkNode(t, n)
		}
		c, err := config.ParseCluster("f", data)
		if err != nil {
			checkErrors(t, data, err)
			return
		}
		for _, node := range c.Nodes {
			require.True(t, strings.HasPrefix(node.URL, "https://") && strings.HasPrefix(node.DataURL, "https://"))
			found, ok := c.Node(node.Name)
			require.True(t, ok)
			require.Equal(t, node, found, "a name leads to one node")
		}
	})
}

func checkErrors(t *testing.T, data []byte, err error) {
	var all config.Errors
	require.True(t, errors.As(err, &all), "%T", err)
	require.NotEmpty(t, all)
	for _, e := range all {
		require.NotContains(t, e.Error(), "\n")
		require.NotEmpty(t, e.Problem)
		require.GreaterOrEqual(t, e.Line, 1)
		require.LessOrEqual(t, e.Line, bytes.Count(data, []byte("\n"))+1)
	}
}

func checkNode(t *testing.T, n *config.Node) {
	paths := []string{n.Socket, n.Dir, n.Identity.CA, n.Identity.Cert, n.Identity.Key, n.Identity.CRL}
	for _, r := range n.Resources {
		if r.Command == nil {
			paths = append(paths, r.Path)
		} else {
			paths = append(paths, r.Command.Argv[0], r.Command.Dir)
			require.GreaterOrEqual(t, r.Command.Spool, int64(config.MinSpool))
		}
		require.NotZero(t, r.Mode)
		require.Zero(t, r.Mode&^0o777)
	}
	for _, p := range paths {
		require.True(t, filepath.IsAbs(p) && filepath.Clean(p) == p, "%q", p)
	}
	require.LessOrEqual(t, len(n.Socket), config.MaxSocketPath)
	require.NotEmpty(t, n.Front.UIDs)
	require.NotContains(t, n.Front.UIDs, uint32(65534))
	l := n.Limits
	for _, v := range []int64{int64(l.Tasks), int64(l.Connections), l.JournalPerTask, l.JournalPerNode,
		int64(l.RunFor), int64(l.StallAfter), int64(l.KeepFinal), int64(l.Heartbeat), int64(l.RetryFor), int64(l.Drain)} {
		require.Positive(t, v)
	}
	for _, g := range n.Grants {
		require.NotEmpty(t, g.May)
		for _, may := range g.May {
			require.Contains(t, config.Rights, may)
		}
		for _, r := range g.Resources {
			_, ok := n.Resource(r)
			require.True(t, ok || slices.Equal(g.Resources, []string{"*"}))
		}
	}
}
