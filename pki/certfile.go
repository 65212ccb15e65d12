package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	der, rule := onePEM(data, keyBlock, MaxPEM)
	if rule != "" {
		return nil, fmt.Errorf("not a private key: %s", rule)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("not a private key: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("not an ECDSA P-256 key (%T)", key)
	}
	return ec, nil
}

// LoadCert reads a file with one certificate.
func LoadCert(path string) (*x509.Certificate, error) {
	data, err := readBounded(path, MaxPEM)
	if err != nil {
		return nil, fmt.Errorf("reading certificate: %w", err)
	}
	cert, err := ParseCertPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

// LoadCA reads a file with a cluster's CA certificate.
func LoadCA(path string) (*x509.Certificate, error) {
	cert, err := LoadCert(path)
	if err != nil {
		return nil, err
	}
	if err := checkCA(cert); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

// checkCA sees to it that a certificate is a CA of our making.
func checkCA(cert *x509.Certificate) error {
	const usage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage&usage != usage {
		return refused("not a CA certificate")
	}
	if !p256(cert) {
		return refused("the CA's key is not ECDSA P-256")
	}
	_, err := caCluster(cert)
	return err
}

func p256(cert *x509.Certificate) bool {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	return ok && key.Curve == elliptic.P256()
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readFile(f, limit)
}
