package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

const (
	treeFirst = `{"kind":"tree","v":1,"root":{"mode":493,"mtime":"2026-11-20T21:31:04Z","uid":0,"gid":0,"xattrs":{"user.x":"eA=="}},"size":9,"piece":4194304,"entries":3,"exact":false,"filter":["- *.o"]}` + "\n"
	attrs     = `"mode":420,"mtime":"2026-11-20T21:31:04.12Z","uid":1000,"gid":1000`
	treeDir   = `{"kind":"entry","n":0,"path":"a","type":"dir",` + attrs + `}` + "\n"
	treeFile  = `{"kind":"entry","n":1,"path":"a/b","type":"file",` + attrs + `,"size":3,"at":0,"digest":"b3:` + hex64 + `"}` + "\n"
	treeLarge = `{"kind":"entry","n":2,"path":"a/c","type":"file",` + attrs + `,"size":12582913,"at":3,"xattrs":{"user.mime":"eA=="}}` + "\n"
	treePiece = `{"kind":"piece","n":3,"value":"` + hex64 + `"}` + "\n"
	treeZero  = `{"kind":"zero","n":4,"count":3}` + "\n"
	treeDone  = `{"kind":"digest","n":5,"digest":"b3:` + hex64 + `"}` + "\n"
	treeLink  = `{"kind":"entry","n":6,"path":"a/d","type":"link","target":"a/b"}` + "\n"
	treeSym   = `{"kind":"entry","n":7,"path":"a.x","type":"symlink",` + attrs + `,"target":"../../etc"}` + "\n"
	treeDev   = `{"kind":"entry","n":8,"path":"b","type":"block",` + attrs + `,"rdev":2049}` + "\n"
	treeSkip  = `{"kind":"skipped","n":9,"path":"c","code":"denied","message":"permission denied"}` + "\n"
	treeEnd   = `{"kind":"end","size":12582916,"digest":"b3:` + treeSum + `","entries":6,"skipped":1}` + "\n"
	treeSum   = "8994e7d715e07e87edb3eb1db3d1bf9fcab4d5e38af0e552e7c8bac57fcef945" // by b3sum of the canonical lines
	treeBody  = treeDir + treeFile + treeLarge + treePiece + treeZero + treeDone + treeLink + treeSym + treeDev + treeSkip
)

func readTree(s string, c *transfer.TreeCursor, n int64) ([]transfer.TreeLine, transfer.TreeWindow, error) {
	var got []transfer.TreeLine
	w, err := transfer.ReadTreeWindow(strings.NewReader(s), c, n, func(_ transfer.TreeHeader, l transfer.TreeLine) error {
		l.Raw = bytes.Clone(l.Raw)
		got = append(got, l)
		return nil
	})
	return got, w, err
}

func TestReadTreeWindow(t *testing.T) {
	var c transfer.TreeCursor
	got, w, err := readTree(treeFirst+beat+treeBody+treeEnd, &c, 64)
	require.NoError(t, err)
	require.Equal(t, []string{"- *.o"}, w.Header.Filter)
	require.True(t, w.End)
	require.Len(t, got, 10)
	require.EqualValues(t, 12582916, w.Size)
	require.Equal(t, "a/c", got[4].Entry.Path)
	require.EqualValues(t, 1, got[4].Piece)
	require.EqualValues(t, 3, got[4].Count)
	require.Equal(t, treeDone, string(got[5].Raw))
	require.EqualValues(t, 2049, got[8].Entry.Rdev)

	// The same in windows of three lines, as a reader gets it that remembers.
	c = transfer.TreeCursor{}
	lines := strings.SplitAfter(treeBody, "\n")
	for c.Next < 9 {
		_, w, err = readTree(treeFirst+strings.Join(lines[c.Next:c.Next+3], "")+fmt.Sprintf("{\"kind\":\"window\",\"next\":%d}\n", c.Next+3), &c, 3)
		require.NoError(t, err)
		require.Equal(t, w.Next == 3 || w.Next == 0, c.Open(), "at line %d", w.Next)
	}
	_, w, err = readTree(treeFirst+treeSkip+treeEnd, &c, 3)
	require.NoError(t, err)
	require.True(t, w.End)

	// And from the lines that were kept.
	var kept transfer.TreeCursor
	require.NoError(t, transfer.ReadTreeLines(strings.NewReader(treeBody), &kept, nil))
	require.Equal(t, c.Digest(), kept.Digest())
	kept = transfer.TreeCursor{}
	require.ErrorIs(t, transfer.ReadTreeLines(strings.NewReader(treeDir+treeFile[:9]), &kept, nil), io.ErrUnexpectedEOF)
	require.EqualValues(t, len(treeDir), kept.Bytes)
}

// TestReadTreeWindowCut: at whatever byte a window is cut, it is never taken for
// a whole one, and the cursor stands behind the last whole line.
func TestReadTreeWindowCut(t *testing.T) {
	whole := treeFirst + treeBody + treeEnd
	for i := range len(whole) {
		var c transfer.TreeCursor
		got, _, err := readTree(whole[:i], &c, 64)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", i)
		require.EqualValues(t, len(got), c.Next)
	}
}

func TestReadTreeWindowRefuses(t *testing.T) {
	replace := func(s, old, new string) string {
		require.Contains(t, s, old)
		return strings.Replace(s, old, new, 1)
	}
	dir := func(path string) string {
		return treeFirst + replace(treeDir, `"a"`, fmt.Sprintf("%q", path)) + treeEnd
	}
	file := func(old, new string) string { return treeFirst + treeDir + replace(treeFile, old, new) + treeEnd }
	for name, s := range map[string]string{
		"E67 parent":                    dir("../x"),
		"E67 absolute":                  dir("/x"),
		"E67 parent within":             dir("a/../../x"),
		"E67 two slashes":               dir("//x"),
		"E67 empty part":                dir("a//x"),
		"E67 dot":                       dir("."),
		"E67 empty":                     dir(""),
		"E68 below a symlink":           treeFirst + replace(treeSym, `"n":7`, `"n":0`) + replace(treeFile, "a/b", "a.x/b") + treeEnd,
		"E68 below what is not there":   treeFirst + replace(treeFile, `"n":1`, `"n":0`) + treeEnd,
		"E70 link to a later entry":     treeFirst + treeDir + replace(treeLink, `"n":6,"path":"a/d","type":"link","target":"a/b"`, `"n":1,"path":"a/b","type":"link","target":"a/d"`) + treeEnd,
		"E70 link to itself":            treeFirst + treeDir + replace(treeLink, `"n":6,"path":"a/d"`, `"n":1,"path":"a/b"`) + treeEnd,
		"E70 link outside":              treeFirst + replace(replace(treeLink, `"n":6,"path":"a/d"`, `"n":0,"path":"b"`), "a/b", "../a") + treeEnd,
		"E71 same name twice":           treeFirst + treeDir + replace(treeDir, `"n":0`, `"n":1`) + treeEnd,
		"E71 out of order":              treeFirst + replace(treeDir, `"a"`, `"b"`) + replace(treeDir, `"n":0`, `"n":1`) + treeEnd,
		"E71 back into a directory":     treeFirst + treeBody + replace(treeFile, `"n":1,"path":"a/b"`, `"n":10,"path":"a/e"`) + treeEnd,
		"E72 trailing slash":            dir("a/"),
		"E73 device of no kernel":       treeFirst + replace(replace(treeDev, `"n":8`, `"n":0`), "2049", "9007199254740993") + treeEnd,
		"E76 name of 4,097 bytes":       dir(strings.Repeat("a/", 2048) + "b"),
		"E76 component of 256 bytes":    dir(strings.Repeat("a", 256)),
		"E76 NUL":                       treeFirst + replace(treeDir, `"a"`, `"a\u0000"`) + treeEnd,
		"E76 newline":                   treeFirst + replace(treeDir, `"a"`, `"a\n"`) + treeEnd,
		"E78 size negative":             file(`"size":3`, `"size":-3`),
		"E78 size 8 EiB":                treeFirst + treeDir + replace(replace(treeLarge, "12582913", "9223372036854775807"), `"n":2`, `"n":1`) + treeEnd,
		"E78 sizes overflow":            treeFirst + treeDir + treeFile + replace(treeLarge, "12582913", "9007199254740991") + treeEnd,
		"symlink to nothing":            treeFirst + replace(replace(treeSym, `"n":7`, `"n":0`), "../../etc", "") + treeEnd,
		"symlink to more than PATH_MAX": treeFirst + replace(replace(treeSym, `"n":7`, `"n":0`), "../../etc", strings.Repeat("x", 4096)) + treeEnd,
		"of gantry itself":              dir(".gantry"),
		"skipped path":                  treeFirst + replace(replace(treeSkip, `"n":9`, `"n":0`), `"c"`, `"../c"`) + treeEnd,
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := readTree(s, new(transfer.TreeCursor), 64)
			requireCode(t, api.UnsafeEntry, err)
			require.Regexp(t, `^unsafe entry ".*": .+`, err.Error())
		})
	}
}

func TestReadTreeWindowRefusesForm(t *testing.T) {
	replace := func(s, old, new string) string {
		require.Contains(t, s, old)
		return strings.Replace(s, old, new, 1)
	}
	all := treeFirst + treeBody + treeEnd
	for name, s := range map[string]string{
		"E76 invalid UTF-8":               replace(all, `"path":"a"`, "\"path\":\"\xff\""),
		"E78 size beyond int64":           replace(all, `"size":3`, `"size":9223372036854775808`),
		"E78 at is not the sum":           replace(all, `"at":3`, `"at":4`),
		"E81 more entries than allowed":   replace(all, `"entries":3`, `"entries":134217729`),
		"E82 endless heartbeats":          treeFirst + strings.Repeat(beat, 8641) + treeBody + treeEnd,
		"E83 data after the end":          all + treeEnd,
		"E84 digest of the tree":          replace(all, treeSum, hex64),
		"E85 end with other counts":       replace(all, `"entries":6`, `"entries":5`),
		"E85 end with another size":       replace(all, `"size":12582916`, `"size":12582917`),
		"E85 file without its pieces":     treeFirst + treeDir + treeFile + treeLarge + replace(treeLink, `"n":6`, `"n":3`),
		"E85 digest before its pieces":    treeFirst + treeDir + treeFile + treeLarge + replace(treeDone, `"n":5`, `"n":3`),
		"E85 more pieces than the file":   replace(all, `"count":3`, `"count":4`),
		"E85 end within a file":           treeFirst + treeDir + treeFile + treeLarge + treeEnd,
		"E85 skipped within a file":       treeFirst + treeDir + treeFile + treeLarge + replace(treeSkip, `"n":9`, `"n":3`),
		"E86 second header":               treeFirst + treeFirst,
		"E86 a file's manifest":           first + piece0,
		"C35 line longer than the limit":  replace(all, "\n", strings.Repeat(" ", 57344)+"\n"),
		"C39 duplicate key":               replace(all, `"v":1`, `"v":1,"v":1`),
		"C41 unknown key":                 replace(all, `"path":"a"`, `"path":"a","more":1`),
		"C41 unknown kind":                treeFirst + `{"kind":"more","n":0}` + "\n",
		"C41 unknown type":                replace(all, `"type":"dir"`, `"type":"door"`),
		"C43 wrong n":                     replace(all, `"n":1,`, `"n":2,`),
		"C43 n is 1e0":                    replace(all, `"n":1,`, `"n":1e0,`),
		"version 2":                       replace(all, `"v":1`, `"v":2`),
		"other piece size":                replace(all, "4194304", "4194305"),
		"header without the root's mode":  replace(all, `"mode":493,`, ""),
		"header with a negative size":     replace(all, `"size":9`, `"size":-9`),
		"header with too many rules":      replace(all, `["- *.o"]`, `["`+strings.Repeat(`","`, 600)+`"]`),
		"mode with a type":                replace(all, `"mode":420`, `"mode":33188`),
		"mtime with a zone":               replace(all, "04.12Z", "04.12+01:00"),
		"uid negative":                    replace(all, `"uid":1000`, `"uid":-1`),
		"digest missing":                  replace(all, `,"digest":"b3:`+hex64+`"`, ""),
		"digest of a large file":          replace(all, `"at":3`, `"at":3,"digest":"b3:`+hex64+`"`),
		"digest of another kind":          replace(all, "b3:", "b4:"),
		"xattrs of a link":                replace(all, `"target":"a/b"`, `"target":"a/b","xattrs":{"user.x":""}`),
		"xattr with a control character":  replace(all, "user.mime", `user.\n`),
		"xattrs of more than the limit":   replace(all, `{"user.mime":"eA=="}`, `{"user.mime":"`+strings.Repeat("eHh4", 9000)+`"}`),
		"piece without a file":            treeFirst + replace(treePiece, `"n":3`, `"n":0`),
		"zero run of none":                replace(all, `"count":3`, `"count":0`),
		"value in capitals":               treeFirst + treeDir + treeFile + treeLarge + strings.ToUpper(treePiece),
		"bad value":                       replace(all, `"value":"0`, `"value":"g`),
		"skipped with an unknown code":    replace(all, `"code":"denied"`, `"code":"maybe"`),
		"skipped with an endless message": replace(all, "permission denied", strings.Repeat("x", 600)),
		"bad_name with an endless path":   treeFirst + `{"kind":"skipped","n":0,"path":"` + strings.Repeat("x", 17000) + `","code":"bad_name","message":""}` + "\n",
		"window line too early":           treeFirst + treeDir + `{"kind":"window","next":1}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := readTree(s, new(transfer.TreeCursor), 64)
			requireCode(t, api.BadManifest, err)
		})
	}
	_, _, err := readTree(all, new(transfer.TreeCursor), 2)
	requireCode(t, api.BadManifest, err)
	requireCode(t, api.BadManifest, transfer.ReadTreeLines(strings.NewReader(treeFirst), new(transfer.TreeCursor), nil))
}

func TestReadTreeWindowErrorLine(t *testing.T) {
	for _, before := range []string{"", treeFirst, treeFirst + treeDir} {
		_, _, err := readTree(before+`{"kind":"error","code":"io","message":"read","retryable":true}`+"\n", new(transfer.TreeCursor), 64)
		var wire *feedback.Error
		require.ErrorAs(t, err, &wire)
		require.Equal(t, &feedback.Error{Code: "io", Message: "source: read", Retryable: true}, wire)
	}
	// What the reader of the lines refuses is not counted.
	var c transfer.TreeCursor
	full := errors.New("disk full")
	_, err := transfer.ReadTreeWindow(strings.NewReader(treeFirst+treeBody), &c, 64, func(_ transfer.TreeHeader, l transfer.TreeLine) error {
		if l.N == 2 {
			return full
		}
		return nil
	})
	require.ErrorIs(t, err, full)
	require.EqualValues(t, 2, c.Next)
	require.False(t, c.Open())
}

func TestComparePaths(t *testing.T) {
	order := []string{"", "a", "a/b", "a/b/c", "a/bb", "a!", "a.x", "ab", "b"}
	for i, a := range order {
		for k, b := range order {
			got := transfer.ComparePaths(a, b)
			require.Equal(t, [3]bool{i < k, i == k, i > k}, [3]bool{got < 0, got == 0, got > 0}, "%q %q", a, b)
		}
	}
}

// FuzzTreeManifest: whatever is accepted is in order and bounded.
func FuzzTreeManifest(f *testing.F) {
	f.Add([]byte(treeFirst+beat+treeBody+treeEnd), int64(64))
	f.Add([]byte(treeFirst+treeBody+`{"kind":"window","next":10}`+"\n"), int64(10))
	f.Fuzz(func(t *testing.T, data []byte, n int64) {
		if n < 1 || n > 1<<20 {
			return
		}
		var c transfer.TreeCursor
		last, kept := "", []byte{}
		w, err := transfer.ReadTreeWindow(bytes.NewReader(data), &c, n, func(_ transfer.TreeHeader, l transfer.TreeLine) error {
			kept = append(kept, l.Raw...)
			if l.Kind == transfer.TreeKindEntry {
				require.NoError(t, transfer.CheckName(l.Entry.Path))
				require.Negative(t, transfer.ComparePaths(last, l.Entry.Path))
				require.True(t, l.Entry.Size >= 0 && l.Entry.At >= 0 && l.Entry.At <= transfer.MaxSize-l.Entry.Size)
				last = l.Entry.Path
			}
			return nil
		})
		if err != nil {
			return
		}
		require.True(t, w.Next <= n && w.Next == c.Next)
		var again transfer.TreeCursor
		require.NoError(t, transfer.ReadTreeLines(bytes.NewReader(kept), &again, nil))
		require.Equal(t, c.Digest(), again.Digest())
	})
}
