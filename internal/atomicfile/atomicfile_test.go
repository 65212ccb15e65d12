package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"gantry/internal/atomicfile"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("ATOMICFILE_CHILD"); path != "" { // of the failpoint tests
		if err := atomicfile.WriteFile(path, []byte("new"), 0o600, "test.file"); err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	if path := os.Getenv("ATOMICFILE_APPENDER"); path != "" {
		os.Exit(appendLines(path))
	}
	testkit.Main(m)
}

// appendLines shows each line that is durable. Its exit code is 3 when a step
// failed and stayed failed.
func appendLines(path string) int {
	a, err := atomicfile.OpenAppender(path, 0o600, "test.log")
	if err != nil {
		return 1
	}
	for _, line := range []string{"one\n", "two\n", "three\n", "four\n"} {
		if a.Append([]byte(line)) == nil && a.Sync() == nil {
			os.Stdout.WriteString(line)
			continue
		}
		if failed := a.Err(); failed != nil && a.Append(nil) == failed && a.Sync() == failed {
			return 3
		}
		return 1
	}
	return 0
}

func TestWriteFileReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, atomicfile.WriteFile(path, []byte("old"), 0o600, "test.file"))
	before, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, atomicfile.WriteFile(path, []byte("new"), 0o640, "test.file"))
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.False(t, os.SameFile(before, after), "the old file was written to in place")
	require.Equal(t, fs.FileMode(0o640), after.Mode())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "new", string(text))
	requireAlone(t, path)
}

func TestWriteFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	require.NoError(t, os.Mkdir(path, 0o700)) // a rename onto it fails
	require.Error(t, atomicfile.WriteFile(path, []byte("text"), 0o600, "test.file"))
	requireAlone(t, path)

	require.ErrorIs(t, atomicfile.WriteFile(filepath.Join(dir, "none", "file"), nil, 0o600, "test.file"), fs.ErrNotExist)
}

func TestRemoveTempTakesNothingElse(t *testing.T) {
	dir := t.TempDir()
	keep := []string{".a.", ".a.12x", ".a.b.12", ".b.12", ".c.12", "a", "a.12"}
	for _, name := range append([]string{".a.12", ".a.4294967295"}, keep...) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".a.13"), 0o700))
	require.NoError(t, atomicfile.RemoveTemp(dir, "a", "b.12"))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	require.Equal(t, []string{".a.", ".a.12x", ".a.13", ".a.b.12", ".b.12", ".c.12", "a", "a.12"}, left)
	require.ErrorIs(t, atomicfile.RemoveTemp(filepath.Join(dir, "none"), "a"), fs.ErrNotExist)
}

// requireAlone: nothing but path is in its folder.
func requireAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, filepath.Base(path), entries[0].Name())
}

func TestAppenderGoesOnWhereItStopped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, line := range []string{"one\n", "two\n"} {
		a, err := atomicfile.OpenAppender(path, 0o600, "test.log")
		require.NoError(t, err)
		require.NoError(t, a.Append([]byte(line)))
		require.NoError(t, a.Sync())
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, info.Size(), a.Size())
		require.NoError(t, a.Close())
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\n", string(text))
}

func TestAppenderErrorSticks(t *testing.T) {
	a, err := atomicfile.OpenAppender("/dev/full", 0o600, "test.log")
	require.NoError(t, err)
	defer a.Close()
	failed := a.Append([]byte("x"))
	require.Error(t, failed)
	require.Equal(t, failed, a.Append([]byte("y")), "what a failed write left is unknown")
	require.Equal(t, failed, a.Sync())
	require.Equal(t, failed, a.Err())
}

func TestRenameFlags(t *testing.T) {
	path := t.TempDir()
	dir, err := os.Open(path)
	require.NoError(t, err)
	defer dir.Close()
	for _, name := range []string{"a", "b"} {
		require.NoError(t, os.WriteFile(filepath.Join(path, name), []byte(name), 0o600))
	}
	err = atomicfile.Rename(dir, "a", dir, "b", atomicfile.NoReplace, "test.file.rename")
	require.True(t, errors.Is(err, fs.ErrExist), "%v", err)
	require.NoError(t, atomicfile.Rename(dir, "a", dir, "b", atomicfile.Exchange, "test.file.rename"))
	text, err := os.ReadFile(filepath.Join(path, "a"))
	require.NoError(t, err)
	require.Equal(t, "b", string(text))
}
