package serve

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/fastcgi"
	"gantry/pki"
)

// Front says which processes are the front.
type Front struct {
	UIDs  []uint32      // may ask anything
	Token *access.Token // nil: none is asked for
}

// AllowPeer admits the front's uids and the responder's own, which may ask for
// HealthPath only. It is meant for fastcgi.Server.
func (s *Shell) AllowPeer(p fastcgi.Peer) bool {
	return slices.Contains(s.config.Front.UIDs, p.UID) || p.UID == uint32(os.Getuid())
}

// checkFront refuses requests that did not come from the front. A peer that is
// unknown is refused: certificates are public, so whoever reaches the socket
// could claim any.
func (s *Shell) checkFront(r *http.Request, params access.Getter) error {
	peer, ok := fastcgi.PeerFrom(r.Context())
	if !ok || !slices.Contains(s.config.Front.UIDs, peer.UID) {
		return api.BadFront.Err("requests are taken from the front only")
	}
	return s.config.Front.Token.Check(params)
}

// ErrRevoked is the cause of a context that ended because its caller may no
// longer ask: the certificate was revoked, expired, or the list went stale.
var ErrRevoked = errors.New("the caller's certificate is no longer accepted")

type revoked struct{ error }

func (e revoked) Is(target error) bool { return target == ErrRevoked }
func (e revoked) Unwrap() error        { return e.error }

// recheck judges the caller again every api.Recheck, for as long as the
// request lasts, and ends ctx when the answer has become no. stop must be called.
func recheck(ctx context.Context, v *pki.Verifier, c access.Caller) (_ context.Context, stop func()) {
	return judgeAgain(ctx, func() error {
		_, err := v.VerifyClient(c.Cert, time.Now())
		return err
	})
}

func judgeAgain(ctx context.Context, judge func() error) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var timer *time.Timer
	timer = time.AfterFunc(time.Hour, func() {
		if ctx.Err() != nil {
			return // stopped while judging: Stop came before Reset
		}
		if err := judge(); err != nil {
			cancel(revoked{err})
			return
		}
		timer.Reset(api.Recheck)
	})
	timer.Reset(api.Recheck) // only now: the function uses timer
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}
