package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

const (
	hex64   = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	first   = `{"kind":"file","v":1,"size":12582913,"piece":4194304,"data":4096,"mtime":"2026-11-20T21:31:04.12Z"}` + "\n"
	piece0  = `{"kind":"piece","n":0,"value":"` + hex64 + `"}` + "\n"
	zero12  = `{"kind":"zero","from":1,"count":2}` + "\n"
	piece3  = `{"kind":"piece","n":3,"value":"` + hex64 + `"}` + "\n"
	beat    = `{"kind":"heartbeat"}` + "\n"
	end     = `{"kind":"end","size":12582913,"digest":"b3:` + hex64 + `"}` + "\n"
	window3 = `{"kind":"window","next":3}` + "\n"
)

func read(s string, from, n int64) ([]transfer.Entry, transfer.Window, error) {
	var got []transfer.Entry
	w, err := transfer.ReadWindow(strings.NewReader(s), from, n, func(_ transfer.File, e transfer.Entry) error {
		got = append(got, e)
		return nil
	})
	return got, w, err
}

func TestReadWindow(t *testing.T) {
	got, w, err := read(beat+first+beat+piece0+zero12+beat+piece3+end, 0, 64)
	require.NoError(t, err)
	require.True(t, w.End)
	require.Equal(t, "b3:"+hex64, w.Digest)
	require.EqualValues(t, 12582913, w.File.Size)
	require.EqualValues(t, 4096, w.File.Data)
	require.True(t, w.File.MTime.Equal(time.Date(2026, 11, 20, 21, 31, 4, 120e6, time.UTC)))
	require.Len(t, got, 3)
	require.Equal(t, transfer.Entry{N: 1, Count: 2, Zero: true}, got[1])

	_, w, err = read(first+piece0+zero12+window3, 0, 3)
	require.NoError(t, err)
	require.False(t, w.End)
	require.EqualValues(t, 3, w.Next)

	// Padding of a front that needs it is white space.
	_, _, err = read(strings.Replace(first, "\n", strings.Repeat(" ", 3000)+"\n", 1)+piece0+zero12+window3, 0, 3)
	require.NoError(t, err)
}

// TestReadWindowCut: at whatever byte a window is cut, it is never taken for a
// whole one.
func TestReadWindowCut(t *testing.T) {
	whole := first + piece0 + zero12 + piece3 + end
	for i := range len(whole) {
		_, _, err := read(whole[:i], 0, 64)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", i)
	}
	broken := errors.New("connection reset")
	_, err := transfer.ReadWindow(io.MultiReader(strings.NewReader(first+piece0), iotest.ErrReader(broken)), 0, 64, func(transfer.File, transfer.Entry) error { return nil })
	require.ErrorIs(t, err, broken)
}

func TestReadWindowRefuses(t *testing.T) {
	replace := func(s, old, new string) string {
		require.Contains(t, s, old)
		return strings.Replace(s, old, new, 1)
	}
	rest := piece0 + zero12 + piece3 + end
	for name, s := range map[string]string{
		"E85 manifest shorter than data": first + piece0 + end,
		"E85 manifest longer than data":  first + rest[:len(rest)-len(end)] + `{"kind":"piece","n":4,"value":"` + hex64 + `"}` + "\n" + end,
		"E86 two manifests":              first + rest + first + rest,
		"E86 second file line":           first + first + rest,
		"E78 size negative":              replace(first, "12582913", "-1") + rest,
		"E78 size 8 EiB":                 replace(first, "12582913", "9223372036854775807") + rest,
		"E78 size beyond int64":          replace(first, "12582913", "9223372036854775808") + rest,
		"C43 size 1e3":                   replace(first, "12582913", "1e3") + rest,
		"C35 line longer than the limit": first + strings.Repeat(" ", 5000) + rest,
		"C37 NUL":                        first + "\x00" + rest,
		"C37 invalid UTF-8":              first + replace(piece0, "piece", "\xff"),
		"C37 BOM":                        "\ufeff" + first + rest,
		"C39 duplicate key":              replace(first, `"v":1`, `"v":1,"v":1`) + rest,
		"C40 key in other case":          replace(first, `"v"`, `"V"`) + rest,
		"C41 unknown kind":               first + `{"kind":"more"}` + "\n" + rest,
		"C41 unknown field":              first + replace(piece0, `"n":0`, `"n":0,"m":0`) + rest,
		"C52 two objects on a line":      first + strings.Replace(piece0+zero12, "\n", "", 1) + rest,
		"C44 bytes after the last line":  first + rest + " ",
		"kind missing":                   `{}` + "\n",
		"no file line":                   rest,
		"version 2":                      replace(first, `"v":1`, `"v":2`) + rest,
		"other piece size":               replace(first, "4194304", "4194305") + rest,
		"data beyond size":               replace(first, "4096", "12582914") + rest,
		"key missing":                    replace(first, `"data":4096,`, "") + rest,
		"null":                           replace(first, `4096`, "null") + rest,
		"key of another kind":            first + replace(piece0, `"n":0`, `"n":0,"next":1`) + rest,
		"value too short":                first + replace(piece0, "00112233", "0011223"),
		"value in capitals":              first + replace(piece0, "aabb", "AABB"),
		"piece twice":                    first + piece0 + rest,
		"piece left out":                 first + zero12 + piece3 + end,
		"pieces swapped":                 first + piece0 + piece3 + zero12 + end,
		"negative piece":                 first + replace(piece0, `"n":0`, `"n":-1`) + rest,
		"zero run of none":               first + piece0 + replace(zero12, `"count":2`, `"count":0`) + rest,
		"zero run negative":              first + piece0 + replace(zero12, `"count":2`, `"count":-1`) + rest,
		"zero run past the end":          first + piece0 + replace(zero12, `"count":2`, `"count":4`) + end,
		"zero run that overflows":        first + piece0 + replace(zero12, `"count":2`, `"count":9223372036854775807`) + end,
		"window line in place of end":    first + piece0 + zero12 + piece3 + `{"kind":"window","next":4}` + "\n",
		"window line with another next":  first + piece0 + zero12 + `{"kind":"window","next":2}` + "\n",
		"window shorter than asked for":  first + piece0 + zero12 + window3,
		"end with another size":          first + piece0 + zero12 + piece3 + replace(end, "12582913", "12582912"),
		"C46 end without a digest":       first + piece0 + zero12 + piece3 + replace(end, `,"digest":"b3:`+hex64+`"`, ""),
		"end with a bad digest":          first + piece0 + zero12 + piece3 + replace(end, "b3:", "b4:"),
		"more heartbeats than a day has": first + strings.Repeat(beat, 8641) + rest,
		"mtime that is none":             replace(first, "2026-11-20", "2026-13-20") + rest,
		"an array":                       first + "[]\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := read(s, 0, 64)
			requireCode(t, api.BadManifest, err)
		})
	}
	_, _, err := read(first+piece0+zero12+piece3+end, 0, 2)
	requireCode(t, api.BadManifest, err)
	_, _, err = read(first+piece0+end, 4, 64)
	requireCode(t, api.BadManifest, err)
}

func TestReadWindowErrorLine(t *testing.T) {
	for _, before := range []string{"", first, first + piece0} {
		_, _, err := read(before+`{"kind":"error","code":"source_changed","message":"was written to","retryable":true}`+"\n", 0, 64)
		var wire *feedback.Error
		require.ErrorAs(t, err, &wire)
		require.Equal(t, &feedback.Error{Code: "source_changed", Message: "source: was written to", Retryable: true}, wire)
	}
}

// FuzzManifest: whatever is accepted is in order and bounded, and written again
// it reads the same.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(first+piece0+beat+zero12+piece3+end), int64(0), int64(64))
	f.Fuzz(func(t *testing.T, data []byte, from, n int64) {
		if from < 0 || n < 1 || n > api.MaxWindow || from > transfer.MaxSize/piece {
			t.Skip("not asked for by any importer")
		}
		var again bytes.Buffer
		next := from
		w, err := transfer.ReadWindow(bytes.NewReader(data), from, n, func(file transfer.File, e transfer.Entry) error {
			require.Equal(t, next, e.N)
			require.Positive(t, e.Count)
			next = e.N + e.Count
			require.LessOrEqual(t, next, min(from+n, transfer.Pieces(file.Size)))
			again.Write(transfer.EntryBytes(e))
			return nil
		})
		if err != nil {
			return
		}
		require.Equal(t, next, w.Next)
		entries := bytes.Clone(again.Bytes())
		again.Reset()
		if w.File.Stream {
			again.Write(transfer.StreamBytes())
		} else {
			again.Write(transfer.FileBytes(w.File))
		}
		again.Write(entries)
		if w.End {
			again.Write(transfer.EndBytes(w.File.Size, w.Digest))
		} else {
			again.Write(transfer.WindowBytes(w.Next))
		}
		w2, err := transfer.ReadWindow(&again, from, n, func(transfer.File, transfer.Entry) error { return nil })
		require.NoError(t, err)
		require.True(t, w.File.MTime.Equal(w2.File.MTime))
		w.File.MTime, w2.File.MTime = time.Time{}, time.Time{}
		require.Equal(t, fmt.Sprint(w), fmt.Sprint(w2))
	})
}
