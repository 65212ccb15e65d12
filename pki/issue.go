package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
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

// checkHost accepts what may stand in a front's certificate beside its name: a
// DNS name or an IP address, without port and without wildcard.
func checkHost(host string) (ip netip.Addr, err error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return netip.Addr{}, fmt.Errorf("host %q: an address with a zone cannot stand in a certificate", host)
		}
		return ip.Unmap(), nil
	}
	if len(host) == 0 || len(host) > 253 {
		return netip.Addr{}, fmt.Errorf("host %q must have 1 to 253 bytes", host)
	}
	for label := range strings.SplitSeq(host, ".") {
		ok := 0 < len(label) && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' &&
			strings.IndexFunc(label, func(r rune) bool {
				return r > 0x7f || !alphanumeric(byte(r)) && r != '-' && r != '_'
			}) < 0
		if !ok {
			return netip.Addr{}, fmt.Errorf("host %q is neither an IP address nor a lower case DNS name (no port, no wildcard)", host)
		}
	}
	return netip.Addr{}, nil
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
