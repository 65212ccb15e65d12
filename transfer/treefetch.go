package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// A treeWorker makes files and pieces, one at a time.
type treeWorker struct {
	*treeImport
	buf []byte // see room
	h   pieceHasher
	br  *bufio.Reader
}

// minRoom is the least that room makes.
const minRoom = 64 << 10

// room returns the first n bytes of buf, or of a larger one when it has fewer:
// most trees have small files, and need no buffer of a whole piece per worker.
func room(buf []byte, n int64) []byte {
	if int64(cap(buf)) < n {
		buf = make([]byte, max(minRoom, int64(1)<<bits.Len64(uint64(n-1))))
	}
	return buf[:n]
}

// room is the worker's own.
func (w *treeWorker) room(n int64) []byte {
	w.buf = room(w.buf, n)
	return w.buf
}

// work does jobs until there are no more.
func (r *treeImport) work(ctx context.Context) error {
	w := &treeWorker{treeImport: r, br: bufio.NewReaderSize(nil, readSize)}
	for job := range r.jobs {
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		var err error
		switch {
		case job.big != nil:
			err = w.bigJob(ctx, job)
			err = errors.Join(err, r.release(job.big))
		case job.olds:
			err = w.oldJob(ctx, job.files)
		default:
			err = w.newJob(ctx, job.files)
		}
		r.reuse(job.files)
		if err != nil {
			return err
		}
	}
	return nil
}

// reuse keeps the memory of a job that is done for another one.
func (r *treeImport) reuse(files []treeFile) {
	if cap(files) == 0 {
		return
	}
	clear(files)
	select {
	case r.spare <- files[:0]:
	default:
	}
}

// newJob fetches files, neighbours together, but for those that an earlier run
// made.
func (w *treeWorker) newJob(ctx context.Context, files []treeFile) error {
	run := 0 // files[:run] are fetched in one request
	for i := 0; i < len(files); i++ {
		if !w.resumed {
			run = len(files)
			break
		}
		have, err := w.staged(&files[i], w.room(files[i].Size))
		if err != nil {
			return err
		}
		if !have {
			run++
			continue
		}
		w.found().Add(files[i].Size)
		if err := w.fetchFiles(ctx, files[:run]); err != nil {
			return err
		}
		files, run, i = files[i+1:], 0, -1
	}
	return w.fetchFiles(ctx, files[:run])
}

// oldJob brings files into the stage that the old tree has. What it does not
// have any more is fetched.
func (w *treeWorker) oldJob(ctx context.Context, files []treeFile) error {
	for i := range files {
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		f := &files[i]
		if f.old.link {
			ok, err := w.link(f)
			if err != nil {
				return err
			}
			if ok {
				continue
			}
		}
		if f.told {
			w.bytes.carried.Add(-f.Size)
		}
		v, look, ok, err := w.readOld(f.oldPath(), w.room(f.Size))
		if err != nil {
			return err
		}
		if ok && v == f.Digest && f.old.link && look != f.old.look && sameContent(look, f.old.look) {
			// Only its ctime moved: another name of it was brought along.
			if ok, err := w.linkAgain(f, look); ok || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		}
		if !ok || v != f.Digest {
			if f.old.path != "" {
				w.renamed.Add(-1)
			}
			if err := w.fetchFiles(ctx, files[i:i+1]); err != nil {
				return err
			}
			continue
		}
		if err := w.create(f, w.room(f.Size)); err != nil {
			return err
		}
		w.bytes.copied.Add(f.Size)
	}
	return nil
}

// linkAgain is link for a file that has been read once more.
func (w *treeWorker) linkAgain(f *treeFile, look oldFile) (bool, error) {
	here, ok, err := w.oldEntry(f.oldPath())
	if !ok || err != nil {
		return false, err
	}
	if ok, err = w.alikeOld(f.oldPath(), &f.TreeEntry, here); !ok || err != nil {
		return false, err
	}
	if f.told {
		w.bytes.carried.Add(f.Size)
	}
	f.old.look = look
	ok, err = w.link(f)
	if !ok && f.told {
		w.bytes.carried.Add(-f.Size)
	}
	return ok, err
}

// countingReader counts what comes over the wire.
type countingReader struct {
	r io.Reader
	p *puller
}

// Read reads on.
func (c countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.p.wire.Add(int64(n))
	return n, err
}

// request asks for content and returns a reader of it that hashes well.
func (w *treeWorker) request(ctx context.Context, off, length int64) (*bufio.Reader, io.Closer, error) {
	defer while(&w.waits.content)()
	w.attempts.Add(1)
	body, err := watch(ctx, w.bodyIdle, func(ctx context.Context) (io.ReadCloser, error) { return w.source.Content(ctx, off, length) })
	if err != nil {
		return nil, nil, err
	}
	w.br.Reset(countingReader{body, &w.puller})
	return w.br, body, nil
}

// land reads into the buffer and hashes what comes.
func (w *treeWorker) land(body io.Reader, buf []byte, n int64, whole bool) (Value, error) {
	defer while(&w.waits.content)()
	w.h.reset(n, whole)
	for at := 0; at < len(buf); {
		k, err := body.Read(buf[at:min(at+readSize, len(buf))])
		at += k
		w.counter.Came(int64(k))
		w.h.land(buf, at)
		if err != nil && at < len(buf) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // fronts end broken replies properly
			}
			return Value{}, err
		}
	}
	return w.h.sum(buf), nil
}

// fetchFiles fetches neighbouring files in one request, or in more when that
// breaks, and makes each when it is proved.
func (w *treeWorker) fetchFiles(ctx context.Context, files []treeFile) error {
	if len(files) == 0 {
		return nil
	}
	var wrong wrongs
	return w.retry(ctx, "content", func() (further bool, err error) {
		first, last := &files[0], &files[len(files)-1]
		var body io.Reader = eofReader{}
		if length := last.At + last.Size - first.At; length > 0 {
			b, closer, err := w.request(ctx, first.At, length)
			if err != nil {
				return false, err
			}
			defer closer.Close()
			body = b
		}
		for len(files) > 0 {
			f := &files[0]
			buf := w.room(f.Size)
			v, err := w.land(body, buf, 0, true)
			if err != nil {
				return further, err
			}
			if v != f.Digest {
				if f.Size == 0 {
					return further, badManifest("%.300q is empty and has the digest of something", f.Path)
				}
				return further, w.mismatch(ctx, &wrong, v, f.Digest, f.line, fmt.Sprintf("%.300q", f.Path))
			}
			w.progress()
			further, wrong = true, wrongs{}
			if err := w.create(f, buf); err != nil {
				return further, err
			}
			w.bytes.fetched.Add(f.Size)
			files = files[1:]
		}
		return further, nil
	})
}

// eofReader is the content of empty files.
type eofReader struct{}

// Read never has bytes.
func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

// wrongs are the values of what arrived wrong, in a row.
type wrongs struct {
	n   int
	got [maxWrong]Value
}

// mismatch is the error of bytes that are not what line of the manifest says: ask
// again or, after maxWrong times, who is to blame.
func (w *treeWorker) mismatch(ctx context.Context, x *wrongs, got, want Value, line int64, what string) error {
	x.got[x.n] = got
	if x.n++; x.n == maxWrong {
		return w.judge(ctx, x, want, line, what)
	}
	w.report.Log("warn", w.item, what+" arrived with other content than the source hashed, nothing of it is kept, asking again")
	return errWrong
}

// judge asks the source to read once more what stays wrong, and names the guilty
// side.
func (w *treeWorker) judge(ctx context.Context, x *wrongs, want Value, line int64, what string) error {
	w.report.Log("warn", w.item, fmt.Sprintf("%s arrived wrong %d times, the source is to read it again", what, maxWrong))
	var again Value
	err := w.retry(ctx, "reading again", func() (bool, error) {
		rc, err := watch(ctx, w.bodyIdle, func(ctx context.Context) (io.ReadCloser, error) { return w.source.Rehash(ctx, line) })
		if err != nil {
			return false, err
		}
		defer rc.Close()
		again, err = ReadTreeRehash(rc, line)
		return false, err
	})
	switch {
	case err != nil:
		return err
	case again != want:
		return fail(api.SourceChanged, nil, "%s reads otherwise at the source than when its manifest was made", what)
	case x.got[0] == x.got[1] && x.got[1] == x.got[2]:
		return fail(api.CorruptPiece, nil, "%s: the source confirms its value but sends the same other bytes every time: the source, or the web server that sends its files, is at fault", what)
	}
	return fail(api.CorruptPiece, nil, "%s: the source confirms its value but other bytes arrive every time: something between source and target changes them", what)
}

// bigJob makes pieces of a large file: those that the stage or the old file has
// are not fetched.
func (w *treeWorker) bigJob(ctx context.Context, job bringJob) error {
	b, parts := job.big, job.parts
	run := 0
	for i := 0; i < len(parts); i++ {
		have, err := w.havePart(b, parts[i])
		if err != nil {
			return err
		}
		if !have {
			run++
			continue
		}
		if err := w.fetchParts(ctx, b, parts[:run]); err != nil {
			return err
		}
		parts, run, i = parts[i+1:], 0, -1
	}
	return w.fetchParts(ctx, b, parts[:run])
}

// havePart takes a piece from the stage, or from the old file.
func (w *treeWorker) havePart(b *bigFile, p part) (bool, error) {
	buf := w.room(p.len())
	if w.resumed {
		if err := w.op("read"); err != nil {
			return false, local(err, "reading %.300q of the stage", b.Path)
		}
		if _, err := b.f.ReadAt(buf, p.off()); err == nil && HashPiece(buf, p.N, false) == p.Value {
			w.found().Add(p.len())
			w.gain(p.len())
			return true, nil
		}
	}
	if b.old == nil {
		return false, nil
	}
	if _, err := b.old.ReadAt(buf, p.off()); err != nil || HashPiece(buf, p.N, false) != p.Value {
		return false, nil
	}
	w.bytes.copied.Add(p.len())
	return true, w.writePart(b, p, buf)
}

// writePart writes a proved piece and starts its way to the disk.
func (w *treeWorker) writePart(b *bigFile, p part, buf []byte) error {
	defer while(&w.waits.disk)()
	err := w.op("write")
	if err == nil {
		_, err = b.f.WriteAt(buf, p.off())
	}
	if err != nil {
		return local(err, "writing piece %d of %.300q", p.N, b.Path)
	}
	// Only a beginning: what fails here fails in syncfs too.
	_ = unix.SyncFileRange(int(b.f.Fd()), p.off(), p.len(), unix.SYNC_FILE_RANGE_WRITE)
	w.gain(p.len())
	return nil
}

// fetchParts fetches neighbouring pieces.
func (w *treeWorker) fetchParts(ctx context.Context, b *bigFile, parts []part) error {
	if len(parts) == 0 {
		return nil
	}
	var wrong wrongs
	return w.retry(ctx, "content", func() (further bool, err error) {
		last := parts[len(parts)-1]
		length := last.off() + last.len() - parts[0].off()
		body, closer, err := w.request(ctx, b.At+parts[0].off(), length)
		if err != nil {
			return false, err
		}
		defer closer.Close()
		for len(parts) > 0 {
			p := parts[0]
			buf := w.room(p.len())
			v, err := w.land(body, buf, p.N, false)
			if err != nil {
				return further, err
			}
			if v != p.Value {
				return further, w.mismatch(ctx, &wrong, v, p.Value, p.line, fmt.Sprintf("piece %d of %.300q", p.N, b.Path))
			}
			w.progress()
			further, wrong = true, wrongs{}
			if err := w.writePart(b, p, buf); err != nil {
				return further, err
			}
			w.bytes.fetched.Add(p.len())
			parts = parts[1:]
		}
		return further, nil
	})
}
