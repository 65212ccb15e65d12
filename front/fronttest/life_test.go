package fronttest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/front"
	"gantry/pki"
)

// follower reads the feed as a client of gantry does: whatever ends the reply,
// it attaches again after the last line that it has.
type follower struct {
	mu    sync.Mutex
	last  int   // guarded by mu: lines 1 to last came, each once, in order
	cuts  int   // guarded by mu: replies that ended
	err   error // guarded by mu: what should not have come
	done  chan struct{}
	leave context.CancelFunc
}

func follow(t *testing.T, p *peer) *follower {
	t.Helper()
	ctx, leave := context.WithCancel(context.Background())
	f := &follower{done: make(chan struct{}), leave: leave}
	go func() {
		defer close(f.done)
		for ctx.Err() == nil {
			if f.attach(ctx, p) {
				f.mu.Lock()
				f.cuts++
				f.mu.Unlock()
			}
			select {
			case <-time.After(20 * time.Millisecond): // a server that is away
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(f.stop)
	return f
}

// attach reads one reply; true if it had begun.
func (f *follower) attach(ctx context.Context, p *peer) bool {
	f.mu.Lock()
	after := f.last
	f.mu.Unlock()
	resp, err := p.request(ctx, http.MethodGet, fmt.Sprintf("feed?after=%d", after), nil)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false // 502, 503: not from the responder
	}
	s := bufio.NewReader(resp.Body)
	for {
		text, err := s.ReadString('\n')
		if err != nil {
			return true // a part of a line is no line
		}
		n, err := strconv.Atoi(strings.TrimSpace(text))
		f.mu.Lock()
		if (err != nil || n != f.last+1) && f.err == nil {
			f.err = fmt.Errorf("line %q after %d", text, f.last)
		}
		f.last = n
		f.mu.Unlock()
	}
}

func (f *follower) seen() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *follower) stop() {
	f.leave()
	<-f.done
}

// verdict stops and says what was seen; the leaving itself is no cut.
func (f *follower) verdict() string {
	f.mu.Lock()
	cuts := f.cuts
	f.mu.Unlock()
	f.stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return "feed not whole: " + f.err.Error()
	case cuts == 0:
		return "feed whole, not cut"
	case cuts == 1:
		return "feed whole, cut once"
	}
	return fmt.Sprintf("feed whole, cut %d times", cuts)
}

// grows waits until the feed has n more lines.
func (f *follower) grows(t *testing.T, n int) {
	t.Helper()
	want := f.seen() + n
	require.True(t, eventually(15*time.Second, func() bool { return f.seen() >= want }), "the feed stands still at %d", f.seen())
}

// served waits for a request on a new connection, and says how long it took.
func (w *world) served(t *testing.T, conf *tls.Config) time.Duration {
	t.Helper()
	from := time.Now()
	ok := eventually(15*time.Second, func() bool {
		p := w.clientFor(t, conf, w.o.API[0])
		resp, err := p.request(t.Context(), http.MethodGet, "selftest/headers", nil)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	require.True(t, ok, "no new request is served")
	return time.Since(from)
}

func reloaded(t *testing.T, w *world) string {
	f := follow(t, w.client(t))
	f.grows(t, 20)
	if w.kind == front.EmbeddedServer {
		require.Error(t, front.Reload(w.kind, w.front.pid()))
		return "cannot reload; restart it"
	}
	w.newCert(t)
	// Only the new certificate will do: what answers has read its files again.
	conf := pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil)
	identity := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if got := fmt.Sprintf("%032x", cs.PeerCertificates[0].SerialNumber); got != w.leaf.Serial {
			return fmt.Errorf("certificate %s is the old one", got)
		}
		return identity(cs)
	}
	pid, err := os.ReadFile(filepath.Join(w.o.Dir, "front.pid"))
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(w.front.pid()), strings.TrimSpace(string(pid)))
	require.NoError(t, front.Reload(w.kind, w.front.pid()))
	took := w.served(t, conf)
	t.Logf("served with the new certificate after %s", took)
	f.grows(t, 50)
	text := "new certificate served at once"
	if took > time.Second {
		text = "new certificate served after the grace of 2s"
	}
	require.Less(t, took, 6*time.Second)
	require.True(t, w.front.running(), "%s", w.front.out)
	return text + "; " + f.verdict()
}

func restarted(t *testing.T, w *world) string {
	return w.interrupted(t, func() {
		w.front.stop(t)
		w.startFront(t)
	})
}

func frontKilled(t *testing.T, w *world) string {
	return w.interrupted(t, func() {
		w.front.kill()
		w.startFront(t)
	})
}

func responderRestarted(t *testing.T, w *world) string {
	return w.interrupted(t, func() {
		w.responder.kill()
		w.startResponder(t)
	})
}

// interrupted follows the feed across what happens.
func (w *world) interrupted(t *testing.T, happen func()) string {
	f := follow(t, w.client(t))
	f.grows(t, 20)
	happen()
	took := w.served(t, pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil))
	t.Logf("a new request is served %s after the start", took)
	f.grows(t, 50)
	return "served again; " + f.verdict()
}
