package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// MaxCRL is the longest revocation list in bytes, PEM or DER. It has room for
// some 20,000 revoked certificates, far more than live ones expire in 90 days.
const MaxCRL = 1 << 20

// ClockSkew is how far two machines' clocks may differ before one refuses what
// the other has just signed. Certificates are dated back by it.
const ClockSkew = 5 * time.Minute

// maxCRLNumber bounds the list number to the 20 octets of RFC 5280, 5.2.3.
const maxCRLNumber = 159

// CRL is a revocation list whose signature was checked. Read only.
type CRL struct {
	Number                 *big.Int
	ThisUpdate, NextUpdate time.Time
	PEM, DER               []byte // the list itself, in both forms

	revoked map[string]time.Time // by serial
}

// ParseCRL reads a list, PEM or DER, and checks that ca signed it.
func ParseCRL(data []byte, ca *x509.Certificate) (*CRL, error) {
	if len(data) > MaxCRL {
		return nil, crlRefused("%d bytes, at most %d are allowed", len(data), MaxCRL)
	}
	der := data
	if bytes.HasPrefix(data, []byte("-----")) {
		var rule string
		if der, rule = onePEM(data, crlBlock, MaxCRL); rule != "" {
			return nil, crlRefused("%s", rule)
		}
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, crlRefused("not a revocation list: %v", err)
	}
	if len(list.Raw) != len(der) {
		return nil, crlRefused("bytes follow it")
	}
	if err := list.CheckSignatureFrom(ca); err != nil {
		return nil, crlRefused("not signed by this cluster's CA")
	}
	if list.Number == nil || list.Number.Sign() <= 0 || list.Number.BitLen() > maxCRLNumber {
		return nil, crlRefused("it has no usable number")
	}
	if list.NextUpdate.IsZero() {
		return nil, crlRefused("it has no next update")
	}
	// A delta or partial list (RFC 5280, 5.2.4 and 5.2.5) read as a full one
	// would pardon everybody it leaves out.
	for _, ext := range list.Extensions {
		if ext.Critical {
			return nil, crlRefused("critical extension %s is not understood", ext.Id)
		}
	}
	c := &CRL{
		Number:     list.Number,
		ThisUpdate: list.ThisUpdate,
		NextUpdate: list.NextUpdate,
		PEM:        pem.EncodeToMemory(&pem.Block{Type: crlBlock, Bytes: list.Raw}),
		DER:        list.Raw,
		revoked:    make(map[string]time.Time, len(list.RevokedCertificateEntries)),
	}
	for _, e := range list.RevokedCertificateEntries {
		c.revoked[serialString(e.SerialNumber)] = e.RevocationTime
	}
	return c, nil
}

// Revoked says whether the list names the serial, and since when.
func (c *CRL) Revoked(serial *big.Int) (time.Time, bool) {
	at, ok := c.revoked[serialString(serial)]
	return at, ok
}

func (c *CRL) names(serial string) bool {
	_, ok := c.revoked[serial]
	return ok
}

// Len is the number of certificates on the list.
func (c *CRL) Len() int { return len(c.revoked) }

// serialString is a serial as the index, the command line and logs show it: 32
// lower-case hex digits.
func serialString(n *big.Int) string { return fmt.Sprintf("%032x", n) }
