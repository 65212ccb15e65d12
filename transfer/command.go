package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// OpenCommand starts a program and exports its output, see [OpenStream]. The end
// is said only after its exit with status 0, and when nothing holds its output
// open any more. Codes: command_failed, interrupted (it was started before),
// no_space, io.
func OpenCommand(p Program, item, dir string, room int64, r Reporter) (*Stream, error) {
	if err := p.claim(dir); err != nil {
		return nil, err
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, local(err, "starting %s", p.Argv[0])
	}
	defer theirs.Close()
	proc, err := p.start(nil, theirs)
	if err != nil {
		out.Close()
		return nil, err
	}
	o := &output{process: proc, out: out}
	o.watch.Go(o.wake)
	x, err := OpenStream(o, item, dir, room, r)
	if err != nil {
		o.Stop()
	}
	return x, err
}

// output is the Producer of a program's output.
type output struct {
	*process
	out   *os.File
	watch sync.WaitGroup
	once  sync.Once
}

// wake ends a Read that waits when the program has ended, or is to end.
func (o *output) wake() {
	select {
	case <-o.ended:
	case <-o.stopped:
	}
	o.out.SetReadDeadline(time.Unix(1, 0))
}

// Read reads the output.
func (o *output) Read(b []byte) (int, error) {
	for waited := false; ; waited = true {
		n, err := o.out.Read(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if o.isStopped() {
			return 0, fail(api.CancelledBy, nil, "the command was stopped")
		}
		if waited {
			o.reap()
			if err := o.result(); err != nil {
				return 0, err
			}
			return 0, o.failed("has ended, but a process that it started holds its output open: the output may be incomplete")
		}
		// It has ended; what it wrote is in the pipe.
		o.out.SetReadDeadline(time.Now().Add(leftPatience))
	}
}

// Finish waits for the program's end: closing its output is not ending.
func (o *output) Finish() error {
	select {
	case <-o.ended:
	case <-o.stopped:
		return fail(api.CancelledBy, nil, "the command was stopped")
	}
	o.reap()
	return o.result()
}

// Stop ends the program.
func (o *output) Stop() {
	o.process.Stop()
	o.once.Do(func() {
		o.watch.Wait()
		o.out.Close()
	})
}

// commandSink feeds a program: proved pieces, in order, to its standard input.
// Those who fetch wait with their pieces, so no more than theirs are in memory.
type commandSink struct {
	*run
	proc  *process
	in    *os.File
	watch sync.WaitGroup // the goroutine of mind
	end   context.CancelCauseFunc
	unmap func() bool // takes the end of the context off in

	mu   sync.Mutex
	next int64         // the piece whose turn it is
	news chan struct{} // closed and replaced when next grows
}

var _ sink = (*commandSink)(nil)

// toCommand imports into a program.
func (r *run) toCommand(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	switch {
	case r.Mode != api.ModeCreate:
		return none, fail(api.BadRequest, nil, "mode %s: a command has no old copy, leave the mode out", r.Mode)
	case r.DryRun:
		return none, fail(api.BadRequest, nil, "dry_run: what a command would do is not known before it runs")
	case r.Verify == VerifyDisk:
		return none, fail(api.BadRequest, nil, "verify disk: what a command writes cannot be read back")
	}
	if err := r.onlyContent(ctx); err != nil {
		return none, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &commandSink{run: r, end: cancel, news: make(chan struct{})}
	if err := s.start(ctx); err != nil {
		return none, err
	}
	defer s.close()
	r.perRequest = 1 // so that neighbours come at the same time
	return r.fill(ctx, s)
}

// start runs the program.
func (s *commandSink) start(ctx context.Context) error {
	if err := s.Command.claim(s.Dir); err != nil {
		return err
	}
	theirs, in, err := os.Pipe()
	if err != nil {
		return local(err, "starting %s", s.Command.Argv[0])
	}
	defer theirs.Close()
	if s.proc, err = s.Command.start(theirs, nil); err != nil {
		in.Close()
		return err
	}
	s.in = in
	s.unmap = context.AfterFunc(ctx, func() { in.SetWriteDeadline(time.Unix(1, 0)) })
	s.watch.Go(func() { s.mind(ctx) })
	return nil
}

// mind ends the import when the program fails, also while nothing is fed to it.
func (s *commandSink) mind(ctx context.Context) {
	select {
	case <-s.proc.ended:
	case <-ctx.Done():
		return
	}
	s.proc.reap()
	if err := s.proc.result(); err != nil && !s.proc.isStopped() {
		s.end(err)
	}
}

func (s *commandSink) begin(File) error { return nil }

func (s *commandSink) has(part) (bool, error) { return false, nil }

func (s *commandSink) read(part, []byte) (bool, error) { return false, nil }

func (s *commandSink) clear(ctx context.Context, p part) error {
	if err := s.turn(ctx, p.N); err != nil {
		return err
	}
	for left := p.len(); left > 0; {
		n := min(left, int64(len(zeros)))
		if err := s.feed(ctx, zeros[:n]); err != nil {
			return err
		}
		left -= n
	}
	s.fed(p)
	return nil
}

func (s *commandSink) write(ctx context.Context, p part, buf []byte) error {
	if err := s.turn(ctx, p.N); err != nil {
		return err
	}
	if err := s.feed(ctx, buf); err != nil {
		return err
	}
	s.fed(p)
	return nil
}

// turn waits until every piece before n was fed.
func (s *commandSink) turn(ctx context.Context, n int64) error {
	for {
		s.mu.Lock()
		next, news := s.next, s.news
		s.mu.Unlock()
		if next == n {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return cancelled(ctx)
		}
	}
}

func (s *commandSink) fed(p part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = p.N + p.Count
	close(s.news)
	s.news = make(chan struct{})
}

// feed writes; it waits as long as the program does not read.
func (s *commandSink) feed(ctx context.Context, b []byte) error {
	_, err := s.in.Write(b)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return cancelled(ctx)
	case errors.Is(err, syscall.EPIPE):
		return s.early()
	}
	return local(err, "feeding %s", s.Command.Argv[0])
}

// early is the error of a program that does not take all.
func (s *commandSink) early() error {
	own := true // it ends by itself
	select {
	case <-s.proc.ended:
	case <-time.After(leftPatience):
		own = false
	}
	s.proc.Stop()
	if err := s.proc.result(); err != nil && own {
		return err
	}
	return s.proc.failed("stopped reading before it had all of its input")
}

func (s *commandSink) note(p part) error {
	s.durable(p.Entry)
	return nil
}

func (s *commandSink) checkpoint() error { return nil }

// finish closes the input, which tells the program that it has all: never before
// the digest of the whole was compared. Then the program's exit decides.
func (s *commandSink) finish(ctx context.Context) (api.ImportResult, error) {
	var none api.ImportResult
	s.counter.SetPhase("command")
	rest, err := s.closeInput()
	if err != nil {
		return none, err
	}
	defer rest.Close()
	select {
	case <-s.proc.ended:
	case <-ctx.Done():
		return none, cancelled(ctx)
	}
	s.proc.reap()
	if err := s.proc.result(); err != nil {
		return none, err
	}
	if n, err := unix.IoctlGetInt(int(rest.Fd()), unix.TIOCINQ); err != nil || n > 0 {
		return none, s.proc.failed("ended without reading all of its input")
	}
	if s.Commit != nil {
		if err := s.Commit(); err != nil {
			return none, err
		}
	}
	return s.result(api.TargetFed), nil
}

// closeInput closes the input, and returns a descriptor of what was not read of
// it: an exit with status 0 alone does not say that all was.
func (s *commandSink) closeInput() (rest *os.File, err error) {
	rest, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", s.in.Fd()))
	if err == nil {
		err = s.in.Close()
	}
	return rest, local(err, "closing the input of %s", s.Command.Argv[0])
}

func (s *commandSink) failed(err error) error { return err }

func (s *commandSink) earlier() counters { return counters{} }

func (s *commandSink) carried() bool { return false }

// close kills what still runs.
func (s *commandSink) close() {
	s.end(nil)
	s.unmap()
	s.proc.Stop()
	s.watch.Wait()
	s.in.Close()
}
