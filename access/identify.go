package access

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/pki"
)

// The parameters that carry identity. None begins with HTTP_, which is how
// fronts mark what the client said (RFC 3875, section 4.1.18).
const (
	ParamVerify = "SSL_CLIENT_VERIFY"
	ParamCert   = "SSL_CLIENT_CERT"
	ParamHTTPS  = "HTTPS"
)

// notVerified is all that a caller learns whom the front has not verified.
const notVerified = "client certificate not verified by the front server"

// Getter is the FastCGI parameters of a request.
type Getter interface {
	Get(name string) (value string, ok bool)
}

// Caller is a client whose certificate was verified, or a process on the same
// machine. The zero Caller is nobody.
type Caller struct {
	ID     pki.ID
	SHA256 string // of the certificate, 64 lower-case hex digits
	Cert   *x509.Certificate
	Local  *Local // instead of the others
}

// Local is a process that the kernel vouches for: the peer of a unix socket
// that is no front's.
type Local struct {
	UID  uint32
	Self bool // the program's own user: whoever is that has its keys and files anyway
}

// String is the caller's SPIFFE id, or local:UID: what owns tasks and jobs, and
// what logs say.
func (c Caller) String() string {
	switch {
	case c.Local != nil:
		return fmt.Sprintf("%s%d", api.LocalPrefix, c.Local.UID)
	case c.ID == (pki.ID{}):
		return "nobody"
	}
	return c.ID.String()
}

// Known is false for nobody.
func (c Caller) Known() bool { return c.Local != nil || c.ID != (pki.ID{}) }

// Identify returns the caller that the parameters of a request prove. The
// front must have verified a certificate on a TLS connection, and the
// certificate itself must pass v: the front's word is necessary, not enough.
//
// The error is a wire error: api.NotVerified, api.Revoked or api.StaleCRL. With
// api.StaleCRL the certificate is good as far as can be known, and the caller
// is returned too, for the one request that cures it.
func Identify(params Getter, v *pki.Verifier, now time.Time) (Caller, error) {
	if https, _ := params.Get(ParamHTTPS); https != "on" {
		return Caller{}, api.NotVerified.Err(notVerified)
	}
	if verdict, _ := params.Get(ParamVerify); verdict != "SUCCESS" {
		return Caller{}, api.NotVerified.Err(notVerified)
	}
	text, _ := params.Get(ParamCert)
	if text == "" {
		return Caller{}, api.NotVerified.Err(notVerified)
	}
	cert, err := pki.ParseCertPEM([]byte(text))
	if err != nil {
		return Caller{}, wire(err)
	}
	id, err := v.Judge(cert, now)
	if err != nil {
		return Caller{}, wire(err)
	}
	sum := sha256.Sum256(cert.Raw)
	caller := Caller{ID: id, SHA256: hex.EncodeToString(sum[:]), Cert: cert}
	if err := v.CRL.Check(cert, now); err != nil {
		e := wire(err)
		if e.Code != api.StaleCRL.Name {
			return Caller{}, e
		}
		return caller, e
	}
	return caller, nil
}

// wire turns an error of package pki into a wire error. Any other is a
// certificate that is not understood, and says no more.
func wire(err error) *feedback.Error {
	if e, ok := errors.AsType[*pki.Error](err); ok {
		return api.CodeOf(e.Code).Err(e.Error())
	}
	return api.NotVerified.Err(notVerified)
}
