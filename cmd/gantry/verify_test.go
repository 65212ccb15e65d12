package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestVerifyTrees compares trees of two real nodes, and one with a local folder.
func TestVerifyTrees(t *testing.T) {
	when := time.Date(2026, 1, 1, 0, 0, 0, 0, time.Local)
	c, home := newClusterWith(t, func(_, dir string) string {
		return fmt.Sprintf("\n[[resource]]\nname = \"mail\"\nkind = \"tree\"\npath = %q\n", filepath.Join(dir, "mail")) +
			"[[resource]]\nname = \"dump\"\nkind = \"command\"\ndirection = \"export\"\nargv = [\"/bin/true\"]\n"
	})
	vars := map[string]string{"OPERATOR": home}
	for _, node := range []string{"alpha", "beta"} {
		mail := filepath.Join(filepath.Dir(c.Path(node, "")), "mail")
		vars[map[string]string{"alpha": "ALPHAMAIL", "beta": "BETAMAIL"}[node]] = mail
		require.NoError(t, os.MkdirAll(filepath.Join(mail, "ann"), 0o755))
		for _, name := range []string{"ann/1", "bob", "ann", "."} {
			path := filepath.Join(mail, name)
			if name == "ann/1" || name == "bob" {
				require.NoError(t, os.WriteFile(path, []byte(name + "\n")[:len(name)+1], 0o644))
			}
			require.NoError(t, os.Chtimes(path, when, when))
		}
	}
	scripts(t, "tree_verify.txtar", vars)
}
