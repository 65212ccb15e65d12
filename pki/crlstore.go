package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"gantry/internal/atomicfile"
)

// CRLStore holds a responder's current revocation list, on disk and in memory.
// Safe for concurrent use: readers never wait for a replacement.
type CRLStore struct {
	// config
	path string
	ca   *x509.Certificate

	mu      sync.Mutex // one replacement at a time
	current atomic.Pointer[CRL]
}

// OpenCRLStore reads the list at path. A file that is missing leaves the store
// empty, so that the responder can start and be cured by a Put; until then
// everybody is refused. A file that is there but wrong is an error.
func OpenCRLStore(path string, ca *x509.Certificate) (*CRLStore, error) {
	s := &CRLStore{path: path, ca: ca}
	data, err := readBounded(path, MaxCRL)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading revocation list: %w", err)
	}
	crl, err := ParseCRL(data, ca)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; copy crl.pem from the CA's folder", path, err)
	}
	s.current.Store(crl)
	return s, nil
}

// Current is the list in force, nil if there is none.
func (s *CRLStore) Current() *CRL {
	if s == nil {
		return nil
	}
	return s.current.Load()
}

// Put replaces the list by data, durably, and returns the new one. The CA's
// signature, a strictly higher number and a date that is not in the future are
// all it takes: whoever carries a newer list may deliver it. The error is an
// *Error with CodeCRL, or the disk's, which leaves the old list in force.
func (s *CRLStore) Put(data []byte, now time.Time) (*CRL, error) {
	crl, err := ParseCRL(data, s.ca)
	if err != nil {
		return nil, err
	}
	if ahead := crl.ThisUpdate.Sub(now); ahead > ClockSkew {
		return nil, crlRefused("it is dated %s, which is %s ahead of this clock", stamp(crl.ThisUpdate), ahead.Round(time.Second))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.current.Load(); old != nil && crl.Number.Cmp(old.Number) <= 0 {
		return nil, crlRefused("its number %s is not above %s, the one in force", crl.Number, old.Number)
	}
	if err := atomicfile.WriteFile(s.path, crl.PEM, 0o644, "pki.crl"); err != nil {
		return nil, fmt.Errorf("storing revocation list: %w", err)
	}
	s.current.Store(crl)
	return crl, nil
}

// Check refuses revoked serials (CodeRevoked), and everybody when the list is
// missing or past its next update (CodeCRLStale).
func (s *CRLStore) Check(cert *x509.Certificate, now time.Time) error {
	crl := s.Current()
	if crl == nil {
		return &Error{Code: CodeCRLStale, Rule: "there is no revocation list"}
	}
	if at, ok := crl.Revoked(cert.SerialNumber); ok {
		return &Error{Code: CodeRevoked, Rule: fmt.Sprintf("serial %s was revoked on %s", serialString(cert.SerialNumber), stamp(at))}
	}
	if now.After(crl.NextUpdate) {
		return &Error{Code: CodeCRLStale, Rule: fmt.Sprintf("revocation list %s expired on %s", crl.Number, stamp(crl.NextUpdate))}
	}
	return nil
}

// Age is how old the list is, and Remaining how long it stays valid; negative
// when it is stale, and both 0 when there is none.
func (s *CRLStore) Age(now time.Time) time.Duration {
	if crl := s.Current(); crl != nil {
		return now.Sub(crl.ThisUpdate)
	}
	return 0
}

// Remaining is described at Age.
func (s *CRLStore) Remaining(now time.Time) time.Duration {
	if crl := s.Current(); crl != nil {
		return crl.NextUpdate.Sub(now)
	}
	return 0
}

// Warn is one sentence for status and logs when the list is missing, stale, or
// has less than a third of its life left; otherwise it is empty.
func (s *CRLStore) Warn(now time.Time) string {
	crl := s.Current()
	if crl == nil {
		return "no revocation list: everybody is refused; send one: gantry ca crl --push"
	}
	left, life := crl.NextUpdate.Sub(now), crl.NextUpdate.Sub(crl.ThisUpdate)
	switch {
	case left < 0:
		return fmt.Sprintf("revocation list %s expired on %s: everybody is refused; send a new one: gantry ca crl --push", crl.Number, stamp(crl.NextUpdate))
	case left < life/3:
		return fmt.Sprintf("revocation list %s expires on %s; send a new one: gantry ca crl --push", crl.Number, stamp(crl.NextUpdate))
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
