package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gantry/internal/atomicfile"
)

// Files of a delivered identity, which LoadIdentity and OpenCRLStore read. The
// CA's certificate and the list have the names that they have in its folder.
const (
	LeafCertFile = "cert.pem"
	LeafKeyFile  = "key.pem" // 0600
)

// Deliver writes everything that a party needs into dir, which is made 0700 if
// it is not there: its certificate and key, the CA's certificate, the current
// list. A key that is there already is only overwritten with replace, because
// it cannot be had again.
func (c *CA) Deliver(leaf *Leaf, dir string, replace bool) error {
	crl, err := c.CRL()
	if err != nil {
		return err
	}
	if err := CheckDelivery(dir, replace); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making folder: %w", err)
	}
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{
		{LeafKeyFile, leaf.KeyPEM, 0o600},
		{LeafCertFile, leaf.CertPEM, 0o644},
		{CertFile, c.CertPEM(), 0o644},
		{CRLFile, crl.PEM, 0o644},
	} {
		if err := atomicfile.WriteFile(filepath.Join(dir, f.name), f.data, f.mode, "pki.file"); err != nil {
			return err
		}
	}
	return nil
}

// CheckDelivery says whether Deliver would refuse dir, before a certificate is
// issued in vain.
func CheckDelivery(dir string, replace bool) error {
	key := filepath.Join(dir, LeafKeyFile)
	_, err := os.Lstat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && replace:
		return nil
	case err == nil:
		return fmt.Errorf("%s is there already; write to another folder (--out), or overwrite it (--replace)", key)
	}
	return fmt.Errorf("looking for %s: %w", key, err)
}
