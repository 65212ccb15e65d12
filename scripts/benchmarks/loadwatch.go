package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"gantry/internal/cluster"

	"golang.org/x/sys/unix"
)

// A loadWatcher reads one job's feed through the master's API and judges it: it
// takes the lines as they are, because the client's reader hides repeats.
type loadWatcher struct {
	live, stored [loadPhases][]float64 // ms from the node's handler to here
	items        map[string]int64      // newest value of each

	seq, task, log int64 // the last numbers: the job's, the task's, the log records' own
	faults         faults
	ended          bool
}

// faults are what a watcher must not see.
type faults struct {
	lost, repeated, reordered int64 // stored records
	back                      int64 // progress that is older than what was shown
}

func (f *faults) add(other faults) {
	f.lost += other.lost
	f.repeated += other.repeated
	f.reordered += other.reordered
	f.back += other.back
}

// follows judges a number after the last one, and keeps it.
func (f *faults) follows(last *int64, now int64) {
	switch {
	case now == *last:
		f.repeated++
	case now < *last:
		f.reordered++
		return
	default:
		f.lost += now - *last - 1
	}
	*last = now
}

// line is what the judgement needs of a line.
type line struct {
	Seq    int64
	Kind   string
	Item   string
	Done   int64
	Record struct {
		Seq  int64
		Kind string
		Text string
	}
	Value struct{ Logs int64 }
}

// read follows a feed to its end, or until ctx ends.
func (w *loadWatcher) read(ctx context.Context, h *http.Client, url string, phase *atomic.Int32) error {
	w.items = map[string]int64{}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := h.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("watching %s: %s", url, resp.Status)
	}
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		text, err := in.ReadSlice('\n')
		now := time.Now().UnixMicro()
		if err == io.EOF && w.ended {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watching %s: %w", url, err)
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return err
		}
		if err := w.judge(&l, now, phase.Load()); err != nil {
			return err
		}
	}
}

func (w *loadWatcher) judge(l *line, now int64, phase int32) error {
	if l.Seq > 0 {
		w.faults.follows(&w.seq, l.Seq)
	}
	switch {
	case l.Kind == "progress":
		last, seen := w.items[l.Item]
		if l.Done < last {
			w.faults.back++
		}
		w.items[l.Item] = l.Done
		if phase >= 0 && seen && l.Done > last {
			w.live[phase] = append(w.live[phase], float64(now-l.Done)/1e3)
		}
	case l.Kind == "task":
		w.faults.follows(&w.task, l.Record.Seq)
		if l.Record.Kind != "log" {
			return nil
		}
		f := strings.Fields(l.Record.Text)
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			return err
		}
		w.faults.follows(&w.log, n)
		at, err := strconv.ParseInt(f[1], 10, 64)
		if phase >= 0 {
			w.stored[phase] = append(w.stored[phase], float64(now-at)/1e3)
		}
		return err
	case l.Kind == "result":
		w.ended = true
		w.faults.lost += l.Value.Logs - w.log
	case l.Kind == "error" || l.Kind == "gap":
		return fmt.Errorf("a watcher was shown %+v", *l)
	}
	return nil
}

// slow watches a feed on a connection that holds little, and reads a few bytes a
// second, or none, until ctx ends. Fronts cut whoever takes nothing for a minute:
// it comes again, as watchers do.
func slow(ctx context.Context, c *cluster.Cluster, path string, bytes int, cuts *atomic.Int64) error {
	h, url := c.MasterHTTP()
	h.Transport.(*http.Transport).DialContext = (&net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }); cerr != nil {
			return cerr
		}
		return err
	}}).DialContext
	defer h.CloseIdleConnections()
	for ctx.Err() == nil {
		if err := slowOnce(ctx, h, url+path, bytes, cuts); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func slowOnce(ctx context.Context, h *http.Client, url string, bytes int, cuts *atomic.Int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := h.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("watching slowly: %s", resp.Status)
	}
	if bytes == 0 {
		pause(ctx, 2*time.Minute)
		return nil
	}
	buf := make([]byte, bytes)
	for pause(ctx, time.Second) {
		if _, err := io.ReadFull(resp.Body, buf); err != nil && ctx.Err() == nil {
			cuts.Add(1)
			return nil
		}
	}
	return nil
}

// pause waits; it reports whether ctx lasts.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
