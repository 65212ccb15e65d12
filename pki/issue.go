package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gantry/internal/atomicfile"
)

// Leaf is a fresh certificate with its key. The CA keeps no copy of the key.
type Leaf struct {
	ID              ID
	CertPEM, KeyPEM []byte
	Serial          string // 32 lower-case hex digits
	NotAfter        time.Time
}

// Issue makes a key and a certificate for role and name, valid for life (0:
// MaxLeafLife, which is also the most; never beyond the CA's own end). hosts
// are for fronts only: the DNS names and addresses by which their urls reach
// them, beside the node's name, which is always in. The certificate is in the
// index, on disk, before it is returned.
func (c *CA) Issue(role, name string, hosts []string, life time.Duration) (*Leaf, error) {
	template, err := c.template(role, name, hosts, life)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &key.PublicKey, c.key)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	// What was signed must be what our own verifiers accept.
	id, err := checkLeaf(cert, c.cert)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	leaf := &Leaf{ID: id, CertPEM: EncodeCert(cert), KeyPEM: keyPEM, Serial: serialString(cert.SerialNumber), NotAfter: cert.NotAfter}
	err = c.locked(func(x *index) error {
		return x.add(event{Event: eventIssue, Time: c.opts.now().UTC(), Serial: leaf.Serial, Role: role, Name: name, NotAfter: cert.NotAfter.UTC()})
	})
	if err != nil {
		return nil, err
	}
	return leaf, nil
}

func (c *CA) template(role, name string, hosts []string, life time.Duration) (*x509.Certificate, error) {
	if !slices.Contains(Roles, role) {
		return nil, fmt.Errorf("role %q is unknown; allowed are %s", role, strings.Join(Roles, ", "))
	}
	if err := CheckName("name", name); err != nil {
		return nil, err
	}
	now := c.opts.now()
	switch {
	case life == 0:
		life = MaxLeafLife
	case life < 0 || life > MaxLeafLife:
		return nil, fmt.Errorf("a life of %s is not above 0 and at most %d days", life, MaxLeafLife/(24*time.Hour))
	}
	if now.After(c.cert.NotAfter) {
		return nil, fmt.Errorf("the CA's own certificate expired on %s; make a new CA", stamp(c.cert.NotAfter))
	}
	end := now.Add(life)
	if end.After(c.cert.NotAfter) {
		end = c.cert.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{c.cluster}, OrganizationalUnit: []string{role}, CommonName: name},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: c.cluster, Path: "/" + role + "/" + name}},
	}
	if role != RoleFront {
		if len(hosts) > 0 {
			return nil, fmt.Errorf("only a front's certificate carries hosts, not a %s's", role)
		}
		return t, nil
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return t, addHosts(t, name, hosts)
}

// addHosts fills the DNS and IP SANs, each once.
func addHosts(t *x509.Certificate, name string, hosts []string) error {
	seen := map[string]bool{}
	for _, host := range append([]string{name}, hosts...) {
		ip, err := checkHost(host)
		if err != nil && host != name { // a name was checked as one
			return err
		}
		switch {
		case seen[host]:
		case ip.IsValid():
			t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
		default:
			t.DNSNames = append(t.DNSNames, host)
		}
		seen[host] = true
	}
	return nil
}

// List returns everything that was issued, oldest first.
func (c *CA) List() ([]Entry, error) {
	var list []Entry
	err := c.locked(func(x *index) error {
		for _, e := range x.entries {
			list = append(list, *e)
		}
		return nil
	})
	return list, err
}

// ErrUnknownSerial is the error of revoking what was never issued here.
var ErrUnknownSerial = errors.New("this CA has issued no such certificate")

// Revoke puts a certificate on the revocation list and returns the new list.
// Revoking it again changes nothing but repairs a list that lacks it. The old
// list stays good for verifiers that have not got the new one: deliver it.
func (c *CA) Revoke(serial string) (*CRL, error) {
	var crl *CRL
	err := c.locked(func(x *index) error {
		e := x.serials[strings.ToLower(serial)]
		if e == nil {
			return fmt.Errorf("serial %s: %w", serial, ErrUnknownSerial)
		}
		if e.Revoked.IsZero() {
			if err := x.add(event{Event: eventRevoke, Time: c.opts.now().UTC(), Serial: e.Serial}); err != nil {
				return err
			}
		}
		var err error
		if crl, err = c.CRL(); err != nil || crl.names(e.Serial) {
			return err
		}
		crl, err = c.nextCRL(x)
		return err
	})
	return crl, err
}

// CRL reads the current list.
func (c *CA) CRL() (*CRL, error) {
	data, err := readBounded(filepath.Join(c.dir, CRLFile), MaxCRL)
	if err != nil {
		return nil, fmt.Errorf("reading revocation list: %w", err)
	}
	return ParseCRL(data, c.cert)
}

// RenewCRL signs the list again with a higher number and a fresh life.
func (c *CA) RenewCRL() (*CRL, error) {
	var crl *CRL
	err := c.locked(func(x *index) (err error) {
		crl, err = c.nextCRL(x)
		return err
	})
	return crl, err
}

func (c *CA) nextCRL(x *index) (*CRL, error) {
	old, err := c.CRL()
	if err != nil {
		return nil, err
	}
	return c.signCRL(x, new(big.Int).Add(old.Number, big.NewInt(1)))
}

// signCRL writes a list with every revoked certificate. An expired one stays
// on it for another list's life (RFC 5280, 3.3: at least one list beyond its
// end), then it need not be named any more.
func (c *CA) signCRL(x *index, number *big.Int) (*CRL, error) {
	now, life := c.opts.now(), c.opts.CRLLife
	if life == 0 {
		life = DefaultCRLLife
	}
	template := &x509.RevocationList{Number: number, ThisUpdate: now, NextUpdate: now.Add(life)}
	if x != nil {
		for _, e := range x.entries {
			if e.Revoked.IsZero() || now.After(e.NotAfter.Add(DefaultCRLLife)) {
				continue
			}
			serial, ok := new(big.Int).SetString(e.Serial, 16)
			if !ok {
				return nil, fmt.Errorf("signing revocation list: serial %q of the index is not a number", e.Serial)
			}
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: serial, RevocationTime: e.Revoked})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("signing revocation list: %w", err)
	}
	crl, err := ParseCRL(der, c.cert)
	if err != nil {
		return nil, err
	}
	return crl, atomicfile.WriteFile(filepath.Join(c.dir, CRLFile), crl.PEM, 0o644, "pki.crl")
}
