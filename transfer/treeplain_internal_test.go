package transfer

import (
	"bytes"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

// strangePaths are what JSON writes in some way of its own, and what it does not.
var strangePaths = []string{"a", "d/e f", `q"q`, `b\b`, `b\"`, "<&>", "é/\u2028", "\u00ff", `"path":"x`, "a,b}", "\U0001f600", "\x7f", "\t"}

// TestPlainLines: a line that is written or read without reflection is the one that
// reflection writes or reads.
func TestPlainLines(t *testing.T) {
	when := time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC)
	attrs := TreeAttrs{Mode: 0o644, MTime: when, UID: 1000, GID: 1<<32 - 1}
	plain := 0
	for _, path := range strangePaths {
		for _, e := range []TreeEntry{
			{Path: path, Type: TreeFile, TreeAttrs: attrs, Size: 7, At: 1 << 40, Digest: Value{1}},
			{Path: path, Type: TreeFile, TreeAttrs: attrs, Size: PieceSize + 1},
			{Path: path, Type: TreeDir},
			{Path: path, Type: TreeSymlink, TreeAttrs: attrs, Target: path},
			{Path: "a", Type: TreeLink, Target: path},
			{Path: path, Type: TreeBlock, Rdev: 7},
			{Path: path, Type: TreeFile, TreeAttrs: TreeAttrs{Xattrs: map[string][]byte{"user.a": nil}}},
		} {
			l := treeEntryLine(12, e)
			want, err := json.Marshal(l, json.Deterministic(true))
			require.NoError(t, err)
			want = append(want, '\n')
			require.Equal(t, string(want), string(l.append(nil)))
			if _, ok := l.appendPlain(nil); ok {
				plain++
			}
			samePlain(t, want)
		}
	}
	require.GreaterOrEqual(t, plain, 40)
}

// samePlain demands of a line that is plain what a reader by reflection makes of it.
func samePlain(t *testing.T, raw []byte) {
	l := parsePlain(raw)
	if l == nil {
		return
	}
	var want treeLine
	require.NoError(t, json.Unmarshal(raw, &want, json.RejectUnknownMembers(true)), "%s", raw)
	require.Equal(t, &want, l, "%s", raw)
	if l.Mode != nil || l.Target != nil { // what of others is written is for form to say
		out, ok := l.appendPlain(nil)
		require.True(t, ok)
		require.Equal(t, string(raw), string(out))
	}
}

// FuzzPlainLine: what is taken as plain is what reflection reads.
func FuzzPlainLine(f *testing.F) {
	for _, path := range strangePaths {
		f.Add(treeEntryLine(1, TreeEntry{Path: path, Type: TreeFile, Size: 3}).append(nil))
		f.Add(treeEntryLine(2, TreeEntry{Path: "l", Type: TreeSymlink, Target: path}).append(nil))
	}
	whole := treeEntryLine(0, TreeEntry{Path: "a", Type: TreeFile}).append(nil)
	for _, wrong := range [][2]string{{`"n":0`, `"n":00`}, {`"n":0`, `"n":-1`}, {`"n":0`, `"n":9223372036854775808`}, {`"uid":0`, `"uid":4294967296`}, {`"a"`, `"a`}, {`}`, `,"x":1}`}} {
		f.Add(bytes.Replace(whole, []byte(wrong[0]), []byte(wrong[1]), 1))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { samePlain(t, raw) })
}

func BenchmarkTreeLine(b *testing.B) {
	l := treeEntryLine(1234567, TreeEntry{Path: "some/folder/of/it/file-1234", Type: TreeFile, Size: 4096, At: 4096 * 1234567, TreeAttrs: TreeAttrs{Mode: 0o644, MTime: time.Now(), UID: 1000, GID: 1000}})
	raw := l.append(nil)
	var buf []byte
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			buf = l.append(buf[:0])
		}
	})
	b.Run("write by reflection", func(b *testing.B) {
		for b.Loop() {
			json.Marshal(l, json.Deterministic(true))
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if parsePlain(raw) == nil {
				b.Fatal("not plain")
			}
		}
	})
	b.Run("read by reflection", func(b *testing.B) {
		for b.Loop() {
			json.Unmarshal(raw, new(treeLine), json.RejectUnknownMembers(true))
		}
	})
}

// TestPlainPath: the short way to a line's path is the decoder's, or none.
func TestPlainPath(t *testing.T) {
	plain := 0
	for _, p := range strangePaths {
		for _, e := range []TreeEntry{{Path: p, Type: TreeFile, Size: 1}, {Path: p, Type: TreeLink, Target: "t"}, {Path: p, Type: TreeDir}} {
			raw := treeEntryLine(12, e).append(nil)
			var l treeLine
			if err := json.Unmarshal(raw, &l); err != nil || *l.Path != p {
				t.Fatalf("%s: %v", raw, err)
			}
			got, ok := plainPath(raw)
			if ok && got != p {
				t.Errorf("%s: %q", raw, got)
			}
			if ok {
				plain++
			}
		}
	}
	if plain < 12 {
		t.Errorf("only %d lines are plain", plain)
	}
	for _, raw := range []string{"", `{"kind":"entry","n":1`, `{"kind":"entry","n":1,"path":"a`, `{"kind":"piece","n":1,"path":"a"}`} {
		if got, ok := plainPath([]byte(raw)); ok {
			t.Errorf("%s: %q", raw, got)
		}
	}
}
