package pki

import "fmt"

// The codes of Error, as they appear on the wire.
const (
	CodeCertificate = "client_certificate"  // anything wrong with a client's certificate
	CodeRevoked     = "certificate_revoked" // the revocation list names it
	CodeCRLStale    = "crl_stale"           // no list, or one past its next update
	CodeServer      = "server_certificate"  // the peer that was dialled is not the node's front
	CodePin         = "pin_mismatch"        // right id, but not one of the pinned keys
	CodeCRL         = "crl_refused"         // a list that was offered is not taken
)

// Error is a certificate or list that was refused. Rule is one sentence that
// says which rule it broke; it holds nothing secret. Callers branch on Code.
type Error struct {
	Code string
	Rule string
	Pin  string // of CodePin: that of the key which was shown
}

func (e *Error) Error() string {
	switch e.Code {
	case CodeCertificate, CodeRevoked:
		return "certificate refused: " + e.Rule
	case CodeServer, CodePin:
		return "server certificate refused: " + e.Rule
	case CodeCRL:
		return "revocation list refused: " + e.Rule
	}
	return e.Rule
}

func refused(format string, args ...any) error {
	return &Error{Code: CodeCertificate, Rule: fmt.Sprintf(format, args...)}
}

func crlRefused(format string, args ...any) error {
	return &Error{Code: CodeCRL, Rule: fmt.Sprintf(format, args...)}
}
