package fastcgi

import (
	"log/slog"
	"sync"
	"time"
)

// throttle lets one complaint per key and minute through, so that a peer cannot
// fill a disk with them. The zero value is ready.
type throttle struct {
	mu    sync.Mutex
	since time.Time
	seen  map[string]struct{}
}

const (
	throttleWindow = time.Minute
	// throttleKeys bounds the memory: beyond it complaints are dropped until
	// the minute is over.
	throttleKeys = 256
)

func (t *throttle) allow(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.since) >= throttleWindow {
		t.since, t.seen = now, make(map[string]struct{})
	}
	if _, ok := t.seen[key]; ok || len(t.seen) >= throttleKeys {
		return false
	}
	t.seen[key] = struct{}{}
	return true
}

func (s *Server) logger() *slog.Logger {
	if s.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Logger
}

// complain logs a warning, at most once a minute for each key.
func (s *Server) complain(key, msg string, args ...any) {
	if s.throttle.allow(key) {
		s.logger().Warn(msg, args...)
	}
}
