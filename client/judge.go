package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/pki"
)

// A Peer is the server that a call met.
type Peer struct {
	Pin     string    // of its key, sha256:…, also of one that was refused; "": no certificate was seen
	Role    string    // of the pin, see config.ClusterNode.PinRole
	Expires time.Time // of its certificate; zero when it was refused
}

// lateError is the cause of a node's end when its time is over.
type lateError struct{ after time.Duration }

func (e *lateError) Error() string { return fmt.Sprintf("no answer within %v", e.after) }

// A witness sees how far a call came.
type witness struct {
	sent  atomic.Bool // a request may be on the line
	heard atomic.Bool // a reply has begun

	mu  sync.Mutex
	met Peer // guarded by mu
}

func (w *witness) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { w.sent.Store(true) },
		GotFirstResponseByte: func() { w.heard.Store(true) },
		TLSHandshakeDone: func(cs tls.ConnectionState, err error) {
			if err != nil || len(cs.PeerCertificates) == 0 {
				return
			}
			leaf := cs.PeerCertificates[0]
			w.mu.Lock()
			defer w.mu.Unlock()
			w.met = Peer{Pin: pki.Pin(leaf), Expires: leaf.NotAfter}
		},
	})
}

func (w *witness) peer(err error) Peer {
	if e, ok := errors.AsType[*pki.Error](err); ok && e.Pin != "" {
		return Peer{Pin: e.Pin}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.met
}

// judge makes of a call's error the one error whose code says the outcome. sent
// says whether a request may have reached the node, changes whether it could
// have changed something there.
func judge(ctx context.Context, node string, err error, sent, changes bool) *feedback.Error {
	_, unknown := errors.AsType[*UnknownError](err)
	if e, ok := errors.AsType[*feedback.Error](err); ok && !unknown {
		named := *e
		if p, ok := errors.AsType[*problem](err); ok {
			named.Message = p.node + ": " + e.Message
		}
		return &named
	}
	switch {
	case ctx.Err() != nil:
		return judgeEnd(context.Cause(ctx), node, sent, changes)
	case unknown, sent && errors.Is(err, errLate):
		return wire(api.NoAnswer, node, err)
	}
	return wire(codeOf(AnswerTo(err), sent && changes), node, err)
}

// judgeEnd judges a call that was ended: by its deadline, or by who made it.
func judgeEnd(cause error, node string, sent, changes bool) *feedback.Error {
	late, deadline := errors.AsType[*lateError](cause)
	switch {
	case deadline && sent:
		return api.NoAnswer.Err(fmt.Sprintf("%s: %v", node, late))
	case deadline:
		return api.Unreached.Err(fmt.Sprintf("%s: no connection within %v", node, late.after))
	case sent && changes:
		return api.NoAnswer.Err(node + ": left before it answered")
	}
	return api.CancelledBy.Err(node + ": ended before it answered")
}

// codeOf is the code for an answer that is no node's.
func codeOf(a *Answer, sent bool) *api.Code {
	outcome := a.Unsent
	if sent {
		outcome = a.Sent
	}
	switch {
	case outcome == api.Unknown:
		return api.NoAnswer
	case a == &WrongPin:
		return api.WrongPin
	case a == &WrongServer:
		return api.WrongServer
	case a == &CertRefused:
		return api.NotVerified
	case a == &Stranger:
		return api.NotANode
	case outcome == api.Refused:
		return api.FrontRefused
	}
	return api.Unreached
}

// wire keeps the message of err, which says what to do already.
func wire(code *api.Code, node string, err error) *feedback.Error {
	text := err.Error()
	if _, broken := errors.AsType[*Broken](err); !broken {
		if _, other := errors.AsType[*NotOurs](err); !other {
			text = node + ": " + text
		}
	}
	return &feedback.Error{Code: code.Name, Message: text, Retryable: code.Retryable}
}
