package pki

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"

	"gantry/internal/atomicfile"
)

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
