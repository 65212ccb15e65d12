package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

// changing is an export whose tree is changed at the first request for content:
// the manifest has told all of it.
type changing struct {
	exported
	once   sync.Once
	change func()
	after  bool // when the first content was sent
}

func (c *changing) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	if !c.after {
		c.once.Do(c.change)
	}
	rc, err := c.exported.Content(ctx, off, length)
	if err == nil && c.after {
		var b []byte
		if b, err = io.ReadAll(rc); err == nil {
			c.once.Do(c.change)
			rc.Close()
			return io.NopCloser(bytes.NewReader(b)), nil
		}
	}
	return rc, err
}

// TestTreeChanges: a file that changes between being hashed and being sent ends
// the import with source_changed; the target is what it was, and the same import
// once more brings the tree as it is now. What was sent before it changed is kept as it was hashed,
// and so is a small file, of which the source holds the content.
func TestTreeChanges(t *testing.T) {
	for name, change := range map[string]string{
		"edited":                `printf OTHER | dd of=d/b conv=notrunc status=none`,
		"edited, a large file":  `printf OTHER | dd of=d/large bs=1 seek=4194304 conv=notrunc status=none`,
		"grown":                 `echo more >> d/b`,
		"shortened":             `truncate -s 1 d/b`,
		"removed":               `rm d/b`,
		"directory to a file":   `rm -r d; echo file > d`,
		"directory to a link":   `mv d e; ln -s e d`,
		"another in its place":  `cp d/b d/n; mv d/n d/b`,
		"its directory removed": `rm -r d`,
	} {
		for _, top := range []string{"tree", ""} {
			t.Run(name+" "+top, func(t *testing.T) {
				dir, g := t.TempDir(), newTree(t)
				shell(t, dir, `mkdir d; echo alpha > a; yes bravo | head -c 40000 > d/b; head -c 9000000 /dev/urandom > d/large; echo last > z`)
				at := filepath.Join(g.dir, top)
				shell(t, g.dir, `mkdir -p "`+at+`/d"; echo old > "`+at+`/a"; echo old > "`+at+`/d/b"`)
				before := shell(t, at, pathsAndText)
				c := &changing{exported: exported{tree(t, dir, t.TempDir(), transfer.TreeOptions{})}, change: func() { shell(t, dir, change) }}
				m := g.imp(c)
				m.Name, m.Mode, m.Tree.Extraneous = top, api.ModeReplace, api.ExtraneousDelete
				_, err := m.Run(t.Context())
				requireCode(t, api.SourceChanged, err)
				require.Equal(t, before, shell(t, at, pathsAndText))

				m.Source = exported{tree(t, dir, t.TempDir(), transfer.TreeOptions{})}
				_, err = m.Run(t.Context())
				require.NoError(t, err)
				require.Equal(t, shell(t, dir, pathsAndText), shell(t, at, pathsAndText))
				require.NoError(t, m.Clean(t.Context()))
				require.NoError(t, m.Discard())
			})
		}
	}
	for _, after := range []bool{false, true} {
		dir, g := t.TempDir(), newTree(t)
		shell(t, dir, `echo alpha > a; echo bravo > b`)
		c := &changing{exported: exported{tree(t, dir, t.TempDir(), transfer.TreeOptions{})}, after: after, change: func() { shell(t, dir, `echo other > a; rm b`) }}
		_, err := g.imp(c).Run(t.Context())
		require.NoError(t, err)
		for name, text := range map[string]string{"a": "alpha\n", "b": "bravo\n"} {
			got, err := os.ReadFile(g.at(name))
			require.NoError(t, err)
			require.Equal(t, text, string(got))
		}
	}
}

// TestTreeDropped: a large file that changed while it was hashed is not in the
// tree, nor are its first pieces, and the import is incomplete.
func TestTreeDropped(t *testing.T) {
	for _, there := range []bool{false, true} {
		g, s := newTree(t), &script{}
		big := content(7, 3*piece)
		if there { // the old tree has it, to the piece that it was dropped at
			shell(t, g.dir, `mkdir tree`)
			require.NoError(t, os.WriteFile(g.at("b"), big, 0o600))
		}
		s.file("a", "alpha")
		s.add(fmt.Sprintf(`"kind":"entry","path":"b","type":"file",%s,"size":%d,"at":%d`, attrsOf(0o644), len(big), len(s.content)))
		s.add(fmt.Sprintf(`"kind":"piece","value":"%s"`, transfer.HashPiece(big[:piece], 0, false)))
		s.add(`"kind":"dropped","code":"changed","message":"it grew"`)
		s.content = append(s.content, big...)
		s.skipped++
		s.file("c", "charlie")
		m := g.imp(s)
		m.Mode, m.Tree.Extraneous = api.ModeReplace, api.ExtraneousDelete
		_, err := m.Run(t.Context())
		requireCode(t, api.Incomplete, err)
		for name, text := range map[string]string{"a": "alpha", "c": "charlie"} {
			got, err := os.ReadFile(g.at(name))
			require.NoError(t, err)
			require.Equal(t, text, string(got))
		}
		if !there {
			require.NoFileExists(t, g.at("b"))
		} else { // nothing is deleted when something could not be read
			got, err := os.ReadFile(g.at("b"))
			require.NoError(t, err)
			require.Equal(t, sum(big), sum(got))
		}
		require.NoError(t, m.Discard())
	}
}
