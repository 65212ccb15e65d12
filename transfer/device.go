package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"gantry/api"
	"gantry/internal/atomicfile"
	"gantry/internal/failpoint"

	"golang.org/x/sys/unix"
)

// OpenDevice exports a block device, see [OpenExport]. It is opened exclusively
// (device_used when it is mounted or otherwise in use), which keeps no plain
// writer away, unless it is live: then others may write to it meanwhile, and
// what the reader gets need not be the state of one moment. After a restart the
// pieces that were hashed before are read again, but of a live one.
func OpenDevice(path string, live bool, item, dir string, r Reporter) (*Export, error) {
	flags := unix.O_RDONLY
	if !live {
		flags |= unix.O_EXCL
	}
	f, size, err := openBlock(path, flags)
	if err != nil {
		return nil, err
	}
	src := &source{f: f, device: true, id: identity{size: size, blocks: size / 512}}
	if live {
		r.Log("warn", item, "the device is exported live: what is written to it meanwhile may be in the copy or not, piece by piece")
	}
	return newExport(&Export{src: src, name: item, recheck: !live}, dir, r)
}

// DigestDevice is [Digest] of a block device.
func DigestDevice(ctx context.Context, path string, live bool, item string, r Reporter) (digest string, size int64, err error) {
	flags := unix.O_RDONLY
	if !live {
		flags |= unix.O_EXCL
	}
	f, size, err := openBlock(path, flags)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return (*Cache)(nil).digestOf(ctx, &source{f: f, device: true, id: identity{size: size}}, nil, item, r)
}

// DeviceKey is [Key] of a block device.
func DeviceKey(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", local(err, "looking at %s", path)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fail(api.NotDevice, nil, "%s is no block device", path)
	}
	return fmt.Sprintf("device %d", st.Rdev), nil
}

// DeviceSize is the size of a block device in bytes.
func DeviceSize(path string) (int64, error) {
	f, size, err := openBlock(path, unix.O_RDONLY)
	if err != nil {
		return 0, err
	}
	return size, f.Close()
}

// openBlock opens a block device and asks for its size.
func openBlock(path string, flags int) (*os.File, int64, error) {
	// Looked at first: opening a fifo or a tape may do something.
	if _, err := DeviceKey(path); err != nil {
		return nil, 0, err
	}
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, syscall.EBUSY):
		return nil, 0, fail(api.DeviceUsed, err, "%s is in use", path)
	case err != nil:
		return nil, 0, local(err, "opening %s", path)
	}
	f := os.NewFile(uintptr(fd), path)
	size, err := blockSizeOf(f)
	if err == nil && size > MaxSize {
		err = fail(api.NotDevice, nil, "%s has %d bytes, more than %d", path, size, int64(MaxSize))
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

// blockSizeOf returns the size of a block device in bytes.
func blockSizeOf(f *os.File) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, local(err, "looking at %s", f.Name())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, fail(api.NotDevice, nil, "%s is no block device", f.Name())
	}
	var size uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return 0, local(errno, "asking for the size of %s", f.Name())
	}
	return int64(min(size, 1<<62)), nil
}

// deviceSink writes a block device in place. Nothing is recorded beside it: what
// it has is read and hashed, piece by piece, and only what differs is fetched.
// That is how an import goes on after a restart, too.
type deviceSink struct {
	*run
	f       *os.File
	size    int64
	scratch []byte // of clear, which one goroutine calls

	changed atomic.Bool // something was written

	mu    sync.Mutex
	fresh []Entry // in place but not synced
	sync  sync.Mutex
}

var _ sink = (*deviceSink)(nil)

// toDevice imports onto a block device.
func (r *run) toDevice(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	switch {
	case r.Mode != api.ModeReplace && r.Mode != api.ModeUpdate:
		return none, fail(api.BadRequest, nil, "mode %s: a device is always there; use replace or update, which overwrite it in place", r.Mode)
	case r.KeepOld:
		return none, fail(api.BadRequest, nil, "keep_old: a device is written in place and keeps no old copy; make a snapshot of it before")
	}
	f, size, err := openBlock(r.Device, unix.O_RDWR|unix.O_EXCL)
	if err != nil {
		return none, err
	}
	s := &deviceSink{run: r, f: f, size: size, scratch: make([]byte, PieceSize)}
	defer s.close()
	if err := r.onlyContent(ctx); err != nil {
		return none, err
	}
	if err := r.expected(ctx); err != nil {
		return none, err
	}
	return r.fill(ctx, s)
}

// expected compares the digest of the source with the expected one before the
// device is written to; nothing could undo it.
func (r *run) expected(ctx context.Context) error {
	if r.Expect == "" {
		return nil
	}
	var tree Tree
	_, err := r.windows(ctx, nil, func(f File, e Entry) error {
		if f.Stream {
			return fail(api.BadRequest, nil, "expect and a device: the digest of a stream is known only when the device is overwritten; import it into a file first")
		}
		for n := e.N; n < e.N+e.Count; n++ {
			if ctx.Err() != nil {
				return cancelled(ctx)
			}
			if e.Zero {
				e.Value = ZeroValue(n, PieceLen(n, f.Size), Pieces(f.Size) == 1)
			}
			tree.Add(e.Value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if d := FormatDigest(tree.Root()); d != r.Expect {
		return fail(api.DigestMismatch, nil, "the source has the digest %s, expected was %s; the device was not touched", d, r.Expect)
	}
	return nil
}

func (s *deviceSink) begin(file File) error {
	if err := s.fits(file.Size); err != nil {
		return err
	}
	if s.DryRun {
		return nil
	}
	s.Report.Log("warn", s.Name, "the device is written in place: there is no old copy, and until the task is done it holds parts of the old content and of the new")
	if !file.Stream && file.Size < s.size {
		s.Report.Log("warn", s.Name, fmt.Sprintf("the device has %d bytes more than the source; they stay as they are", s.size-file.Size))
	}
	// Pages that an earlier failed sync left clean must not vouch for the disk.
	if err := unix.Fadvise(int(s.f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return local(err, "dropping the device from memory")
	}
	return nil
}

func (s *deviceSink) fits(end int64) error {
	if end > s.size {
		return fail(api.NoSpace, nil, "the device %s has %d bytes, the source at least %d", s.Device, s.size, end)
	}
	return nil
}

func (s *deviceSink) has(part) (bool, error) { return false, nil }

func (s *deviceSink) read(p part, buf []byte) (bool, error) {
	if err := s.fits(p.off() + int64(len(buf))); err != nil {
		return false, err
	}
	if _, err := s.f.ReadAt(buf, p.off()); err != nil {
		return false, local(err, "reading the device")
	}
	return true, nil
}

func (s *deviceSink) clear(ctx context.Context, p part) error {
	if err := s.fits(p.off() + p.len()); err != nil {
		return err
	}
	if s.DryRun {
		return nil
	}
	for n := p.N; n < p.N+p.Count; n++ {
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		buf, off := s.scratch[:PieceLen(n, p.size)], n*PieceSize
		if _, err := s.f.ReadAt(buf, off); err != nil {
			return local(err, "reading the device")
		}
		if isZero(buf) {
			continue
		}
		s.changed.Store(true)
		if err := s.zero(off, int64(len(buf))); err != nil {
			return local(err, "clearing piece %d", n)
		}
	}
	return s.note(p)
}

// zero makes a range read as zeros: by giving it back where the device then does
// read so (a hole punched in a block device is that by contract, a discard is
// not), else by having the device write them, else by writing them.
func (s *deviceSink) zero(off, length int64) error {
	err := error(unix.EOPNOTSUPP)
	if length%directAlign == 0 {
		err = unix.Fallocate(int(s.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
		if err != nil {
			area := [2]uint64{uint64(off), uint64(length)}
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, s.f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&area))); errno == 0 {
				err = nil
			}
		}
	}
	if err == nil {
		return nil
	}
	for length > 0 {
		n := min(length, int64(len(zeros)))
		if _, err := s.f.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}

func (s *deviceSink) write(_ context.Context, p part, buf []byte) error {
	if err := s.fits(p.off() + int64(len(buf))); err != nil {
		return err
	}
	s.changed.Store(true)
	err := failpoint.Hit("device.write")
	if err == nil {
		_, err = s.f.WriteAt(buf, p.off())
	}
	if err == nil {
		err = failpoint.HitAfter("device.write")
	}
	return local(err, "writing piece %d", p.N)
}

func (s *deviceSink) note(p part) error {
	every := mapBytes
	if s.stream {
		every = streamMapBytes
	}
	s.mu.Lock()
	s.fresh = append(s.fresh, p.Entry)
	due := len(s.fresh) >= every/PieceSize
	s.mu.Unlock()
	if !due || !s.sync.TryLock() {
		return nil
	}
	defer s.sync.Unlock()
	return s.extend()
}

func (s *deviceSink) checkpoint() error {
	s.sync.Lock()
	defer s.sync.Unlock()
	return s.extend()
}

// extend makes durable what was written. sync is held.
func (s *deviceSink) extend() error {
	s.mu.Lock()
	fresh := s.fresh
	s.fresh = nil
	s.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	if err := atomicfile.Datasync(s.f, "device.sync"); err != nil {
		return local(err, "syncing the device")
	}
	s.durable(fresh...)
	return nil
}

// finish has nothing to put in place. What a crash leaves undone after it is
// found done by the next start, which hashes the device.
func (s *deviceSink) finish(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	if s.DryRun {
		result := s.result(api.TargetReplaced)
		result.DryRun = true
		return result, nil
	}
	if err := atomicfile.SyncFile(s.f, "device.fsync"); err != nil {
		return none, local(err, "syncing the device")
	}
	if s.Verify == VerifyDisk {
		if err := s.readBack(ctx); err != nil {
			return none, err
		}
	}
	if ctx.Err() != nil {
		return none, cancelled(ctx)
	}
	if s.Commit != nil {
		if err := s.Commit(); err != nil {
			return none, err
		}
	}
	return s.result(api.TargetReplaced), nil
}

// readBack reads the device past the page cache's memory of what was written.
func (s *deviceSink) readBack(ctx context.Context) error {
	s.counter.SetPhase("verify")
	if err := unix.Fadvise(int(s.f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return local(err, "dropping the device from memory")
	}
	var tree Tree
	for n := range Pieces(s.file.Size) {
		if ctx.Err() != nil {
			return cancelled(ctx)
		}
		buf := s.scratch[:PieceLen(n, s.file.Size)]
		if _, err := s.f.ReadAt(buf, n*PieceSize); err != nil {
			return local(err, "reading the device")
		}
		tree.Add(HashPiece(buf, n, Pieces(s.file.Size) == 1))
	}
	if d := FormatDigest(tree.Root()); d != s.digest {
		return fail(api.CorruptPiece, nil, "the device gives back other bytes than were written to it (%s)", d)
	}
	return nil
}

func (s *deviceSink) failed(err error) error {
	if err != nil && s.changed.Load() {
		s.Report.Log("error", s.Name, "the device now holds parts of its old content and of the new: run the same copy again before anything uses it")
	}
	return err
}

func (s *deviceSink) earlier() counters { return counters{} }

// carried is true: what is on the device already is not fetched.
func (s *deviceSink) carried() bool { return true }

func (s *deviceSink) close() { s.f.Close() }

// sameDevice compares a device with the one of an earlier run. Its number and
// the times of its node say nothing of its content.
func (x *Export) sameDevice(old exported) error {
	if old.Size != x.src.id.size {
		return fail(api.SourceChanged, nil, "the device's size changed from %d to %d bytes", old.Size, x.src.id.size)
	}
	x.src.id.mtime = old.MTime
	return nil
}
