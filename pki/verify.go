package pki

import (
	"crypto/x509"
	"errors"
	"time"
)

// Verifier judges client certificates that a front has forwarded. The front's
// own verdict is necessary but never enough: it may know another CA, no
// revocation list, or be misconfigured. Safe for concurrent use.
type Verifier struct {
	CA  *x509.Certificate // the only trust anchor; its URI SAN names the cluster
	CRL *CRLStore
}

// VerifyClient returns the id that cert speaks for, or an *Error: CodeRevoked,
// CodeCRLStale, or CodeCertificate for everything else.
func (v *Verifier) VerifyClient(cert *x509.Certificate, now time.Time) (ID, error) {
	id, err := v.Judge(cert, now)
	if err != nil {
		return ID{}, err
	}
	if err := v.CRL.Check(cert, now); err != nil {
		return ID{}, err
	}
	return id, nil
}

// Judge is VerifyClient without the revocation list, for the one call that
// must work while the list is stale: the delivery of a new one.
func (v *Verifier) Judge(cert *x509.Certificate, now time.Time) (ID, error) {
	id, err := checkLeaf(cert, v.CA)
	if err != nil {
		return ID{}, err
	}
	if err := checkTime(cert, now); err != nil {
		return ID{}, err
	}
	if err := checkChain(cert, v.CA, x509.ExtKeyUsageClientAuth, now); err != nil {
		return ID{}, err
	}
	return id, nil
}

// checkLeaf applies the rules of our own certificates, which x509 does not
// know: key type, exactly one id of the CA's cluster, and a subject that says
// the same name. Identity is the URI alone; a subject that disagrees is refused
// so that no log or front that prints subjects shows somebody else.
func checkLeaf(cert, ca *x509.Certificate) (ID, error) {
	if !cert.BasicConstraintsValid || cert.IsCA {
		return ID{}, refused("basic constraints: not an end certificate")
	}
	if !p256(cert) {
		return ID{}, refused("public key is %s, only ECDSA P-256 is issued here", cert.PublicKeyAlgorithm)
	}
	if cert.KeyUsage != x509.KeyUsageDigitalSignature {
		return ID{}, refused("key usage is not digital signature alone")
	}
	id, err := ParseID(cert)
	if err != nil {
		return ID{}, err
	}
	cluster, err := caCluster(ca)
	if err != nil {
		return ID{}, err
	}
	if id.Cluster != cluster {
		return ID{}, refused("%s is not of cluster %q", id, cluster)
	}
	if cert.Subject.CommonName != id.Name {
		return ID{}, refused("common name %q and %s disagree", cert.Subject.CommonName, id)
	}
	return id, nil
}

func checkTime(cert *x509.Certificate, now time.Time) error {
	if now.Before(cert.NotBefore) {
		return refused("not valid before %s (this clock says %s)", stamp(cert.NotBefore), stamp(now))
	}
	if now.After(cert.NotAfter) {
		return refused("expired on %s (this clock says %s)", stamp(cert.NotAfter), stamp(now))
	}
	return nil
}

// checkChain demands a signature by our CA itself, with no certificate between.
func checkChain(cert, ca *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return refused("extended key usage does not allow this use")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.After(ca.NotAfter):
		return refused("the CA's own certificate expired on %s", stamp(ca.NotAfter))
	case errors.As(err, &unknown):
		return refused("not signed by this cluster's CA")
	}
	return refused("%v", err)
}
