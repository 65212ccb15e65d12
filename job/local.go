package job

import (
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"gantry/api"
	"gantry/transfer"

	"golang.org/x/sys/unix"
)

// openLocal opens what an import pushes. What is known of a file lies in the
// job's folder, so that another run of the job goes on with it.
func (r *run) openLocal() (transfer.Exporter, func(), error) {
	if r.j.Spec.Local == Stdin {
		return r.openStdin()
	}
	dir, base := filepath.Split(r.j.Spec.Local)
	return r.openBelow(dir, func(root *os.Root, work string) (transfer.Exporter, error) { return r.openIn(root, base, work) })
}

// workDir makes the job's folder for what is known of local files.
func (r *run) workDir() (string, error) {
	work := filepath.Join(r.j.dir, "work")
	if err := os.MkdirAll(work, 0o700); err != nil {
		return "", localError(err, "making %s", work)
	}
	return work, nil
}

// openBelow opens something in dir; the returned function closes both.
func (r *run) openBelow(dir string, open func(root *os.Root, work string) (transfer.Exporter, error)) (transfer.Exporter, func(), error) {
	work, err := r.workDir()
	if err != nil {
		return nil, nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, localError(err, "opening %s", dir)
	}
	x, err := open(root, work)
	if err != nil {
		root.Close()
		return nil, nil, err
	}
	return x, func() {
		x.Close()
		root.Close()
	}, nil
}

// openIn opens a regular file or a directory below root.
func (r *run) openIn(root *os.Root, base, work string) (transfer.Exporter, error) {
	s, report := r.j.Spec, reporter{r.j.feed}
	if info, err := root.Stat(base); base == "" || err == nil && info.IsDir() {
		return transfer.OpenTree(root, base, work, transfer.TreeOptions{Filter: s.Filter, Checksum: s.Checksum}, report)
	}
	if len(s.Filter) > 0 {
		return nil, api.BadRequest.Err("--include, --exclude and --filter are for folders, and " + s.Local + " is a file")
	}
	return transfer.OpenExport(root, base, work, report)
}

func (r *run) openStdin() (transfer.Exporter, func(), error) {
	work, err := r.workDir()
	if err != nil {
		return nil, nil, err
	}
	in, err := newStdin(r.d.Stdin)
	if err != nil {
		return nil, nil, localError(err, "reading standard input")
	}
	x, err := transfer.OpenStream(in, "stdin", work, transfer.DefaultSpool, reporter{r.j.feed})
	if err != nil {
		in.close()
		return nil, nil, err
	}
	return x, func() {
		x.Close()
		in.close()
	}, nil
}

// stdin is a transfer.Producer whose Read ends at Stop, also one that waits for
// another program. Its mode is not changed: other processes share it.
type stdin struct {
	r    io.Reader
	fd   int // -1: r never waits for long
	wake *os.File

	mu      sync.Mutex
	stopped bool // guarded by mu
	end     *os.File
}

func newStdin(r io.Reader) (*stdin, error) {
	s := &stdin{r: r, fd: -1}
	f, ok := r.(*os.File)
	if !ok {
		return s, nil
	}
	var err error
	if s.wake, s.end, err = os.Pipe(); err != nil {
		return nil, err
	}
	s.fd = int(f.Fd())
	return s, nil
}

// Read waits for input or Stop.
func (s *stdin) Read(p []byte) (int, error) {
	for s.fd >= 0 {
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.wake.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == syscall.EINTR {
			continue
		} else if err != nil {
			return 0, localError(err, "waiting for standard input")
		}
		if fds[1].Revents != 0 {
			return 0, errStopped
		}
		break
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		err = localError(err, "reading standard input")
	}
	return n, err
}

// Finish implements transfer.Producer: the end of standard input is all that
// there is to know.
func (s *stdin) Finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return api.Interrupted.Err("standard input is not read any more")
	}
	return nil
}

// Stop ends a Read that waits.
func (s *stdin) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped && s.end != nil {
		s.end.Close() // whoever polls the other end hears of it
	}
	s.stopped = true
}

// close is called when nobody reads any more.
func (s *stdin) close() {
	s.Stop()
	if s.wake != nil {
		s.wake.Close()
	}
}
