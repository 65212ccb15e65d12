// Package transfer moves the bytes of one regular file from a source to a
// target and proves every one of them before it reaches the disk.
//
// A file is cut into pieces of 4 MiB. The exporter sends a manifest, in windows,
// with one BLAKE3 chaining value per piece; the importer fetches the pieces in
// parallel, proves each in memory, writes it into a stage, and publishes the
// stage in one rename when all of it is durable and the digest of the whole,
// which equals what b3sum prints, is the one that the source stated.
//
// The exporting side:
//
//	x, err := transfer.OpenExport(root, "vm1.img", taskDir)
//	defer x.Close()
//	err = x.Window(ctx, from, 64, 0, w)      // NDJSON, see the Manifest section
//	rc, err := x.Content(ctx, off, length)  // the bytes
//
// The importing side:
//
//	im := &transfer.Import{Source: src, Root: root, Name: "vm1.img", Dir: taskDir, Task: id, Report: r}
//	result, err := im.Run(ctx)       // again, with the same Dir, to resume
//	result, err = im.Recover(p)      // after a crash, when the last state was publishing
//
// The caller then makes the result durable, and only then tells the source that
// the reader is done: that message is not part of this package. Errors of a
// known kind wrap a *feedback.Error; [ErrUnsettled] must get no final record.
//
// # Crashes
//
// The task folder of an import holds the record of its stage, a map of proved
// pieces with their values, and the result. What the map lists was synced
// before; it is extended after 256 MiB or 5 s, because each extension waits for
// the disk. A killed importer loses nothing by that: its bytes are in the page
// cache, and pieces that the map does not list are hashed where they are before
// they are fetched again, so that a kill costs at most the 16 MiB that four
// connections held in memory. A power cut may cost what the last 256 MiB or 5 s
// brought. After a failed sync the stage is removed, never trusted again.
//
// # Manifest
//
// A window is a sequence of lines, each one JSON object and a line feed, at most
// 4096 bytes, with exactly the keys shown, in any order:
//
//	{"kind":"file","v":1,"size":N,"piece":4194304,"data":D,"mtime":"2026-11-20T21:31:04.120000001Z"}
//	{"kind":"piece","n":K,"value":"<64 hex digits>"}
//	{"kind":"zero","from":K,"count":C}
//	{"kind":"heartbeat"}
//	{"kind":"window","next":K}
//	{"kind":"end","size":N,"digest":"b3:<64 hex digits>"}
//	{"kind":"error","code":"source_changed","message":"…","retryable":false}
//
// The first line is file; D, at most N, estimates how many bytes are no holes,
// and the time is in UTC, in its shortest form. Then piece and zero lines cover
// the pieces from the one that was asked for, in order, without a gap and not
// beyond what was asked for. Heartbeats may stand anywhere. The last line is
// window when pieces remain, end when this window holds the last piece, error
// when the source gave up; without one of these the window was cut, however
// properly the reply ended. Its reader then asks again from the piece after the
// last entry that came (from the last piece, when that was it).
//
// The value of a piece is the BLAKE3 chaining value of its subtree, of a file of
// at most one piece the root. The values of zero pieces are known to both sides
// (they differ by offset) and count in the digest. An empty file has one piece
// of length 0.
//
// The manifest of a tree has numbered lines of its own kinds; docs/protocol.md shows them.
// [OpenTree] exports a directory, [ReadTreeWindow] reads and judges what came of it,
// [TreeCursor] carries from window to window, [TreeHash] is the digest.
//
// # What it is not
//
// It knows nothing of HTTP, tasks or rights: a [Source] delivers the bytes, and
// one writer per target is the caller's business (see [ClaimOf]). It copies no
// attributes of a file other than the modification time; those of a tree are in its manifest.
package transfer
