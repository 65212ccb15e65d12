package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/atomicfile"
)

// Files of a CA folder.
const (
	CertFile  = "ca.pem"  // public, goes everywhere
	KeyFile   = "ca.key"  // 0600, stays here
	CRLFile   = "crl.pem" // public, goes to every responder
	IndexFile = "index"   // what was issued and revoked, append-only
)

// How long things last.
const (
	DefaultCALife  = 10 * 365 * 24 * time.Hour
	MaxLeafLife    = 90 * 24 * time.Hour // also the default: renewal is a habit, not an event
	DefaultCRLLife = 30 * 24 * time.Hour
)

// Options tune a CA. The zero value is usable.
type Options struct {
	Now     func() time.Time // nil: time.Now
	CALife  time.Duration    // 0: DefaultCALife; InitCA only
	CRLLife time.Duration    // 0: DefaultCRLLife
}

func (o Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// CA is a certificate authority in a folder. Several processes may use one
// folder: each change holds a lock on it and starts from what is on disk, so
// a CA keeps nothing open and needs no Close. Safe for concurrent use.
type CA struct {
	dir     string
	opts    Options
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	cluster string
}

// InitCA makes a CA for cluster in the new folder dir, with revocation list
// number 1. The folder appears complete or not at all; one that exists and is
// not empty is refused.
func InitCA(dir, cluster string, o Options) (*CA, error) {
	if err := CheckName("cluster", cluster); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("making CA folder: %w", err)
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("making CA folder: %w", err)
	}
	// rmdir takes an empty folder only; os.Remove would also delete a file.
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s exists and is not an empty folder; choose another --dir, nothing was changed", dir)
	}
	tmp, err := os.MkdirTemp(parent, ".gantry-ca-*") // 0700
	if err != nil {
		return nil, fmt.Errorf("making CA folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	ca, err := newCA(tmp, cluster, o)
	if err != nil {
		return nil, err
	}
	held, err := os.Open(parent)
	if err != nil {
		return nil, fmt.Errorf("making CA folder: %w", err)
	}
	defer held.Close()
	if err := atomicfile.Rename(held, filepath.Base(tmp), held, filepath.Base(dir), atomicfile.NoReplace, "pki.init.rename"); err != nil {
		return nil, fmt.Errorf("naming CA folder %s: %w", dir, err)
	}
	if err := atomicfile.SyncFile(held, "pki.init.dirsync"); err != nil {
		return nil, err
	}
	ca.dir = dir
	return ca, nil
}

// newCA writes key, certificate and first list into dir.
func newCA(dir, cluster string, o Options) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making CA key: %w", err)
	}
	life := o.CALife
	if life == 0 {
		life = DefaultCALife
	}
	now := o.now()
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{cluster}, CommonName: "gantry CA"},
		NotBefore:             now.Add(-ClockSkew),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: cluster}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("signing CA certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, KeyFile), keyPEM, 0o600, "pki.file"); err != nil {
		return nil, err
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, CertFile), EncodeCert(cert), 0o644, "pki.file"); err != nil {
		return nil, err
	}
	ca := &CA{dir: dir, opts: o, cert: cert, key: key, cluster: cluster}
	if _, err := ca.signCRL(nil, big.NewInt(1)); err != nil {
		return nil, err
	}
	// The index exists from the start, so that later appends need no
	// directory sync for its name.
	return ca, atomicfile.WriteFile(filepath.Join(dir, IndexFile), nil, 0o600, "pki.file")
}

// OpenCA opens a CA folder that InitCA made.
func OpenCA(dir string, o Options) (*CA, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening CA folder: %w", err)
	}
	cert, err := LoadCA(filepath.Join(dir, CertFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no CA in %s; make one: gantry ca init CLUSTER --dir %s: %w", dir, dir, err)
	}
	if err != nil {
		return nil, err
	}
	data, err := ReadSecret(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, KeyFile), err)
	}
	if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(&key.PublicKey) {
		return nil, fmt.Errorf("%s: %s is not the key of %s", dir, KeyFile, CertFile)
	}
	cluster, err := caCluster(cert)
	if err != nil {
		return nil, err
	}
	return &CA{dir: dir, opts: o, cert: cert, key: key, cluster: cluster}, nil
}

// Cluster is the name of the cluster that the CA signs for.
func (c *CA) Cluster() string { return c.cluster }

// Cert is the CA's certificate.
func (c *CA) Cert() *x509.Certificate { return c.cert }

// CertPEM is the CA's certificate as ca.pem holds it.
func (c *CA) CertPEM() []byte { return EncodeCert(c.cert) }

// locked runs change with the folder locked against other processes and with
// the index read anew.
func (c *CA) locked(change func(*index) error) error {
	held, err := os.Open(c.dir)
	if err != nil {
		return fmt.Errorf("locking CA folder: %w", err)
	}
	defer held.Close() // also unlocks
	for {
		err := unix.Flock(int(held.Fd()), unix.LOCK_EX)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("locking CA folder %s: %w", c.dir, err)
		}
	}
	x, err := readIndex(filepath.Join(c.dir, IndexFile))
	if err != nil {
		return err
	}
	return change(x)
}

// newSerial draws 128 random bits (at least 64 are asked for by the CA/Browser
// Forum's baseline requirements, 7.1), so that serials never repeat and say
// nothing.
func newSerial() *big.Int {
	var b [16]byte
	for {
		rand.Read(b[:]) // never fails, see crypto/rand
		if n := new(big.Int).SetBytes(b[:]); n.Sign() > 0 {
			return n
		}
	}
}
