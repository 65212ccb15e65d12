package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// MaxPEM is the longest certificate in PEM form, in bytes. Ours have about
// 900; the bound keeps hostile ones (10,000 names, megabytes of constraints)
// from being parsed at all.
const MaxPEM = 16 << 10

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY" // PKCS #8, RFC 5958
	crlBlock  = "X509 CRL"    // RFC 7468, section 6
)

// ParseCertPEM reads exactly one certificate in the form that OpenSSL and Go
// write (RFC 7468 "strict": 64 columns, line feeds, no headers), which is what
// lighttpd and nginx hand over. Anything before or after it, a second block,
// folded or escaped text is refused: two parsers that disagree on where a
// certificate ends could be made to see two identities.
func ParseCertPEM(data []byte) (*x509.Certificate, error) {
	der, rule := onePEM(data, certBlock, MaxPEM)
	if rule != "" {
		return nil, refused("%s", rule)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refused("not an X.509 certificate: %v", err)
	}
	return cert, nil
}

// EncodeCert is the certificate in the form that ParseCertPEM accepts.
func EncodeCert(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert.Raw})
}

// onePEM returns the bytes of the only block in data, or the rule it breaks.
func onePEM(data []byte, kind string, limit int) (der []byte, rule string) {
	if len(data) == 0 {
		return nil, "empty"
	}
	if len(data) > limit {
		return nil, fmt.Sprintf("%d bytes of PEM, at most %d are allowed", len(data), limit)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, "no PEM block (expected -----BEGIN " + kind + "-----, line feeds, no escapes)"
	case block.Type != kind:
		return nil, fmt.Sprintf("PEM block is %q, expected %q", block.Type, kind)
	case len(block.Headers) > 0:
		return nil, "PEM block has headers"
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return nil, "more than one PEM block"
	case len(rest) > 0:
		return nil, "text after the PEM block"
	}
	// Decode skips text before the block and forgives odd white space; the
	// canonical form does not come back from either. A missing last line feed
	// is forgiven because parameters may be trimmed.
	if canonical := pem.EncodeToMemory(block); !bytes.Equal(bytes.TrimSuffix(canonical, []byte("\n")), bytes.TrimSuffix(data, []byte("\n"))) {
		return nil, "not canonical PEM (64 columns, line feeds, nothing else)"
	}
	return block.Bytes, ""
}
