package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/job"
	"gantry/queue"
)

// up waits for a master; nil: the bound of the run has passed.
func (s *sim) up(not *Master) *Master {
	timer := time.NewTimer(simBound - time.Since(s.begin))
	defer timer.Stop()
	for time.Since(s.begin) < simBound {
		s.mu.Lock()
		m, changed := s.master, s.changed
		s.mu.Unlock()
		if m != nil && m != not {
			return m
		}
		select {
		case <-changed:
		case <-timer.C:
		}
	}
	return nil
}

// user submits a job, watches it to its end, and may cancel it. It returns the
// id, "" if the job was never taken or did not end.
func (s *sim) user(ctx context.Context, k int) string {
	path := fmt.Sprint("job", k)
	s.sleep(3*time.Minute, "arrives", k)
	names := []string{"alpha", "beta", "gamma"}
	from, to := names[s.roll("from", k)%3], names[s.roll("to", k)%3]
	spec := job.Spec{Kind: job.Digest, Cluster: "demo", From: job.Place{Node: from, File: api.File{Resource: "disks", Path: path}}}
	if s.roll("kind", k)%4 != 0 {
		spec.Kind, spec.Mode, spec.Way = job.Copy, api.ModeCreate, []string{job.Pull, job.Push}[s.roll("way", k)%2]
		spec.To = job.Place{Node: to, File: api.File{Resource: "disks", Path: path}}
	}
	req := queue.Job{Spec: api.Encode(spec), Owner: "ann", Key: path, Priority: s.roll("priority", k) % 3}
	if s.roll("limit", k)%3 == 0 {
		req.Limits = []string{"backups"}
	}
	if s.roll("not before", k)%4 == 0 {
		req.NotBefore = time.Now().Add(s.duration(5*time.Minute, "not before for", k))
	}
	id := ""
	for try := 0; id == ""; try++ {
		m := s.up(nil)
		if m == nil {
			s.fault("%s was never taken", path)
			return ""
		}
		kept, _, err := m.Submit(ctx, req)
		if err == nil {
			id = kept.ID
		}
		s.sleep(time.Second, "submit again", k, try)
	}
	var others sync.WaitGroup
	if s.roll("cancel", k)%3 == 0 {
		others.Go(func() { s.canceller(ctx, id, k) })
	}
	if s.roll("abandon", k)%8 == 0 {
		others.Go(func() { s.abandoner(ctx, id, k, path) })
	}
	for range simWatchs - 1 {
		others.Go(func() { s.watch(id, k, path, 1) })
	}
	s.watch(id, k, path, 0)
	others.Wait()
	for try := 0; !s.written(id); try++ { // the row follows the feed, perhaps by the next master
		if s.up(nil) == nil {
			s.fault("%s has ended and its row does not say so", path)
			return id
		}
		s.sleep(time.Second, "row", k, try)
	}
	return id
}

func (s *sim) canceller(ctx context.Context, id string, k int) {
	s.sleep(6*time.Minute, "cancels", k)
	for try := 0; ; try++ {
		m := s.up(nil)
		if m == nil {
			return
		}
		if err := m.Cancel(ctx, id, "bob"); err == nil || errors.Is(err, queue.ErrEnded) {
			return
		}
		s.sleep(5*time.Second, "cancel again", k, try)
	}
}

// abandoner gives a job up as soon as it is unknown.
func (s *sim) abandoner(ctx context.Context, id string, k int, path string) {
	for try := 0; ; try++ {
		m := s.up(nil)
		if m == nil || s.written(id) {
			return
		}
		s.sleep(20*time.Second, "abandon", k, try)
		if !s.unknown(id) {
			continue
		}
		s.mu.Lock()
		s.abandoned[path] = true
		s.mu.Unlock()
		if err := m.Abandon(ctx, id, "bob"); err == nil || errors.Is(err, queue.ErrEnded) {
			return
		}
	}
}

// watch reads a job's feed to its final, over the lives of masters, and finds
// what is out of order.
func (s *sim) watch(id string, k int, path string, who int) {
	last := int64(0)
	ended := false
	for m := s.up(nil); !ended; m = s.up(m) {
		if m == nil {
			s.fault("%s did not end: %s", path, s.describe(id))
			return
		}
		feed, release, err := m.Feed(id)
		if err != nil {
			continue
		}
		err = stream(feed, last, func(rec feedback.Record) error {
			if gap, ok := rec.Body.(*feedback.Gap); ok {
				s.fault("%s: a watcher sees gap %+v", path, *gap)
			}
			if rec.Kind.Stored() {
				if rec.Seq != last+1 || ended {
					s.fault("%s: a watcher sees record %d after %d", path, rec.Seq, last)
				}
				last = rec.Seq
			}
			if rec.Kind.Final() {
				ended = true
				s.mu.Lock()
				s.over[path] = true
				s.mu.Unlock()
			}
			return nil
		})
		release()
		if err == nil && !ended {
			s.fault("%s: a feed ended without its final", path)
		}
	}
}

// stream hands a feed to fn as a client of HTTP gets it.
func stream(feed *feedback.Feed, after int64, fn func(feedback.Record) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	var writing sync.WaitGroup
	defer writing.Wait()
	defer cancel()
	defer r.Close()
	writing.Go(func() {
		reply := feedback.NewWriter(&simReply{w, http.Header{}}, feedback.WriterOptions{})
		w.CloseWithError(feed.Stream(ctx, reply, after, feedback.Hello{ID: "job"}))
	})
	return feedback.NewReader(r, feedback.ReaderOptions{ID: "job", After: after}).Each(fn)
}

type simReply struct {
	io.Writer
	header http.Header
}

func (r *simReply) Header() http.Header { return r.header }
func (r *simReply) WriteHeader(int)     {}
func (r *simReply) Flush()              {}
