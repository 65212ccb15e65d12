package pki

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

const pinPrefix = "sha256:"

// Pin is a certificate's public key as cluster.toml pins it: "sha256:" and the
// hex SHA-256 of the SubjectPublicKeyInfo, as in HTTP's key pinning (RFC 7469,
// section 2.4). It survives a renewal that keeps the key.
func Pin(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return pinPrefix + hex.EncodeToString(sum[:])
}

// ClientTLS is the configuration with which id reaches node's front, whatever
// address is dialled: TLS 1.3, the node's name as server name, a chain to the
// cluster's CA and nothing else, then the front's SPIFFE id, the revocation
// list if id has one, and the pins if there are any.
//
// Sessions are never resumed: a resumed session would outlive a revocation.
// Errors of the last three checks are *Error with CodeServer or CodePin. The
// result must not be changed, only cloned.
func ClientTLS(id *Identity, node string, pins []string) *tls.Config {
	want := ID{Cluster: id.ID.Cluster, Role: RoleFront, Name: node}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		RootCAs:                pool(id.CA),
		ServerName:             node,
		Certificates:           []tls.Certificate{id.Cert},
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		VerifyConnection: func(cs tls.ConnectionState) error {
			return checkFront(cs, want, pins, id.CRL)
		},
	}
}

// PinnedTLS is ClientTLS for a peer of which nothing is known but the
// fingerprints of its keys: it is of another CA, or of none. There must be at
// least one pin. What else can be judged is: TLS 1.3, a full handshake, the
// certificate's time, and that it may be a server's. Errors are *Error with
// CodeServer or CodePin.
//
// The caller's own certificate is shown; whether the peer takes it is the
// peer's business.
func PinnedTLS(id *Identity, node string, pins []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ServerName:             node,
		Certificates:           []tls.Certificate{id.Cert},
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		// There is no CA to verify by. checkPinned judges instead, before a byte
		// of ours is sent; without pins it refuses everybody.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return checkPinned(cs, pins, time.Now())
		},
	}
}

func checkPinned(cs tls.ConnectionState, pins []string, now time.Time) error {
	if cs.DidResume || len(cs.PeerCertificates) == 0 {
		return &Error{Code: CodeServer, Rule: "the connection is not a full handshake"}
	}
	leaf := cs.PeerCertificates[0]
	if len(pins) == 0 {
		return &Error{Code: CodePin, Pin: Pin(leaf), Rule: fmt.Sprintf("its key %s is not pinned for this node: there are no pins", Pin(leaf))}
	}
	if err := checkPins(leaf, pins); err != nil {
		return err
	}
	if err := checkTime(leaf, now); err != nil {
		return &Error{Code: CodeServer, Rule: ruleOf(err)}
	}
	if usage := leaf.ExtKeyUsage; len(usage) > 0 && !slices.Contains(usage, x509.ExtKeyUsageServerAuth) {
		return &Error{Code: CodeServer, Rule: "extended key usage does not allow a server"}
	}
	return nil
}

// checkFront runs after crypto/tls has verified chain, time, usage and name.
func checkFront(cs tls.ConnectionState, want ID, pins []string, crl *CRLStore) error {
	if cs.DidResume || len(cs.VerifiedChains) == 0 {
		return &Error{Code: CodeServer, Rule: "the connection is not a full, verified handshake"}
	}
	chain := cs.VerifiedChains[0]
	leaf, ca := chain[0], chain[len(chain)-1]
	if len(chain) != 2 {
		return &Error{Code: CodeServer, Rule: "it was not signed by the CA itself"}
	}
	got, err := checkLeaf(leaf, ca)
	if err != nil {
		return &Error{Code: CodeServer, Rule: ruleOf(err)}
	}
	if got != want {
		return &Error{Code: CodeServer, Rule: fmt.Sprintf("it belongs to %s, expected %s", got, want)}
	}
	// A stale list does not keep a client from its nodes, which refuse callers
	// by lists of their own; a name on it is believed however old it is.
	if list := crl.Current(); list != nil {
		if at, ok := list.Revoked(leaf.SerialNumber); ok {
			return &Error{Code: CodeServer, Rule: fmt.Sprintf("serial %s was revoked on %s", serialString(leaf.SerialNumber), stamp(at))}
		}
	}
	return checkPins(leaf, pins)
}

// checkPins compares with every pin, so that the time taken does not say which
// one matched.
func checkPins(leaf *x509.Certificate, pins []string) error {
	if len(pins) == 0 {
		return nil
	}
	got, match := Pin(leaf), 0
	for _, pin := range pins {
		match |= subtle.ConstantTimeCompare([]byte(pin), []byte(got))
	}
	if match != 1 {
		return &Error{Code: CodePin, Pin: got, Rule: fmt.Sprintf("its key %s is not pinned for this node", got)}
	}
	return nil
}

// ServerTLS is the configuration of a front of our own (the embedded one):
// every client must show a certificate of the cluster's CA; who it is and what
// it may do is decided behind the front.
func ServerTLS(id *Identity) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.Cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              pool(id.CA),
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
	}
}

func pool(ca *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca)
	return p
}

func ruleOf(err error) string {
	if e, ok := err.(*Error); ok {
		return e.Rule
	}
	return err.Error()
}
