package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// Identity is a party's own certificate and key, with the CA it trusts. CRL is
// optional: where set, ClientTLS refuses fronts that it names.
type Identity struct {
	ID   ID
	CA   *x509.Certificate
	Cert tls.Certificate // Leaf is set
	CRL  *CRLStore
}

// LoadIdentity reads a CA certificate, a certificate and its key (which must
// be private, see ReadSecret), and sees to it that the three belong together.
// An expired certificate is no error here, so that a node can start and say so
// in its status; see Remaining.
func LoadIdentity(caPath, certPath, keyPath string) (*Identity, error) {
	ca, err := LoadCA(caPath)
	if err != nil {
		return nil, err
	}
	cert, err := LoadCert(certPath)
	if err != nil {
		return nil, err
	}
	data, err := ReadSecret(keyPath)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyPath, err)
	}
	id, err := checkLeaf(cert, ca)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certPath, err)
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("%s was not signed by %s", certPath, caPath)
	}
	if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(&key.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", keyPath, certPath)
	}
	return &Identity{
		ID:   id,
		CA:   ca,
		Cert: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert},
	}, nil
}

// Remaining is how long the certificate stays valid; negative once expired.
func (i *Identity) Remaining(now time.Time) time.Duration { return i.Cert.Leaf.NotAfter.Sub(now) }

// Warn is one sentence when less than a third of the certificate's life is
// left, the moment at which renewal is due; otherwise it is empty.
func (i *Identity) Warn(now time.Time) string {
	leaf := i.Cert.Leaf
	if left := i.Remaining(now); left >= leaf.NotAfter.Sub(leaf.NotBefore)/3 {
		return ""
	}
	word := "expires"
	if now.After(leaf.NotAfter) {
		word = "expired"
	}
	return fmt.Sprintf("certificate of %s %s on %s; renew it: gantry ca issue %s %s", i.ID, word, stamp(leaf.NotAfter), i.ID.Role, i.ID.Name)
}
