package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"

	"gantry/api"
	"gantry/feedback"
	"gantry/pki"
)

// An Answer is one row of the table "answer that is not ours → outcome": what a
// client makes of an answer, or of the lack of one.
type Answer struct {
	Name string // a sentence for people and docs/protocol.md
	// Unsent is the outcome when no start was ever sent, so nothing can run.
	Unsent api.Outcome
	// Sent is the outcome when a start may have reached the node and this stays
	// the last word.
	Sent   api.Outcome
	Retry  bool // asked again with backoff, and attached with ?after=SEQ
	Remedy string
}

// The rows. No answer of this table ever means done, or that a task that may
// have started has failed.
var (
	NoConnection  = Answer{"no connection: refused, no route, name not found, time-out", api.Unreachable, api.Unknown, true, "look whether the node's front runs and whether the address in cluster.toml is right"}
	WrongServer   = Answer{"the server's certificate is not that of the node's front: other CA, other name, expired", api.Refused, api.Unknown, false, "compare the node's name and url in cluster.toml, and the CA file, with the node"}
	WrongPin      = Answer{"the server's key is not the one pinned", api.PinMismatch, api.Unknown, false, "ask the node's administrator whether its key was changed, then correct the pin in cluster.toml"}
	CertRefused   = Answer{"the front refuses our certificate (TLS alert)", api.Refused, api.Unknown, false, "look whether the certificate is expired or of another CA; gantry ca issue makes a new one"}
	BrokenRequest = Answer{"the connection broke before the reply began", api.Unreachable, api.Unknown, true, "look at the node's front and responder"}
	GatewayError  = Answer{"500, 502, 503, 504 without problem JSON: the front does not reach the responder", api.Unreachable, api.Unknown, true, "look whether the responder behind it runs"}
	FrontRefuses  = Answer{"another 4xx without problem JSON: the front refuses the request", api.Refused, api.Unknown, false, "look at the front's log and compare its configuration with gantry front config"}
	Redirect      = Answer{"3xx: a redirect, which is never followed", api.Refused, api.Unknown, false, "name the final address in cluster.toml"}
	Stranger      = Answer{"2xx with another media type, such as a page in HTML", api.Unreachable, api.Unknown, true, "look whether another program answers at the node's address"}
	CutReply      = Answer{"the reply broke off, or ended in good order without a final record", api.Unknown, api.Unknown, true, "attach again"}
	Silence       = Answer{"no line for three intervals", api.Unknown, api.Unknown, true, "attach again"}
	BadLine       = Answer{"a line that breaks the format, three times in a row", api.Unknown, api.Unknown, false, "compare the versions of both sides"}
	OtherFolder   = Answer{"404 unknown_task under another dir_id", api.Unknown, api.Unknown, false, "the node lost or changed its folder: look at the target by hand"}
	NeverStarted  = Answer{"404 unknown_task under the dir_id that was asked before the start", api.NotTried, api.NotTried, false, "start it again"}
	Refusal       = Answer{"problem JSON with a code", api.Refused, api.Unknown, false, ""}
)

// Answers is the table, in the order in which a request meets them.
var Answers = []*Answer{
	&NoConnection, &WrongServer, &WrongPin, &CertRefused, &BrokenRequest, &GatewayError, &FrontRefuses,
	&Redirect, &Stranger, &CutReply, &Silence, &BadLine, &OtherFolder, &NeverStarted, &Refusal,
}

var (
	errSilence     = errors.New("the feed was silent for too long")
	errOtherFolder = errors.New("the node does not know the task, and its dir_id is not the one it had")
)

// AnswerTo finds the row for an error of this package's calls. Errors that it
// does not know count as BrokenRequest.
func AnswerTo(err error) *Answer {
	if e, ok := errors.AsType[*NotOurs](err); ok {
		switch {
		case e.Status >= 500:
			return &GatewayError
		case e.Status >= 400:
			return &FrontRefuses
		case e.Status >= 300:
			return &Redirect
		}
		return &Stranger
	}
	if errors.Is(err, errOtherFolder) {
		return &OtherFolder
	}
	if errors.Is(err, errSilence) {
		return &Silence
	}
	if _, ok := errors.AsType[*feedback.FormatError](err); ok {
		return &BadLine
	}
	if e, ok := errors.AsType[*problem](err); ok {
		if e.wire.Code == api.UnknownTask.Name && e.status == http.StatusNotFound {
			return &NeverStarted
		}
		return &Refusal
	}
	if _, ok := errors.AsType[*feedback.Error](err); ok {
		return &Refusal
	}
	if a := answerToTLS(err); a != nil {
		return a
	}
	if e, ok := errors.AsType[*Broken](err); ok && !e.Sent {
		return &NoConnection
	} else if ok && e.reply {
		return &CutReply
	}
	return &BrokenRequest
}

// answerToTLS returns nil when err is not about certificates.
func answerToTLS(err error) *Answer {
	if e, ok := errors.AsType[*pki.Error](err); ok {
		if e.Code == pki.CodePin {
			return &WrongPin
		}
		return &WrongServer
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &WrongServer
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return &WrongServer
	}
	// An alert that the peer sent. crypto/tls keeps its type to itself; the
	// operation's name and the alert's text (RFC 8446, section 6.2) are what it
	// shows.
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		for _, word := range []string{"certificate", "access denied", "unknown certificate authority"} {
			if strings.Contains(e.Err.Error(), word) {
				return &CertRefused
			}
		}
	}
	return nil
}
