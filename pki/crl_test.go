package pki_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/pki"
)

func TestRevoke(t *testing.T) {
	a := newAuthority(t, "demo")
	cert := a.issue(t, pki.RoleOperator, "ann")
	list, err := a.List()
	require.NoError(t, err)
	serial := list[0].Serial
	crl, err := a.Revoke(serial)
	require.NoError(t, err)
	require.EqualValues(t, 2, crl.Number.Int64())
	when, ok := crl.Revoked(cert.SerialNumber)
	require.True(t, ok)
	require.Equal(t, now, when.UTC())

	t.Run("again changes nothing", func(t *testing.T) {
		crl, err := a.Revoke(serial)
		require.NoError(t, err)
		require.EqualValues(t, 2, crl.Number.Int64())
	})
	t.Run("again repairs a list that lacks it", func(t *testing.T) {
		// As after a crash between index and list.
		stale := a.signCRL(t, nil)
		require.NoError(t, os.WriteFile(filepath.Join(a.dir, pki.CRLFile), stale, 0o644))
		crl, err := a.Revoke(serial)
		require.NoError(t, err)
		_, ok := crl.Revoked(cert.SerialNumber)
		require.True(t, ok)
	})
	t.Run("a stranger", func(t *testing.T) {
		_, err := a.Revoke("00112233445566778899aabbccddeeff")
		require.ErrorIs(t, err, pki.ErrUnknownSerial)
	})
	t.Run("leaves the list once long expired", func(t *testing.T) {
		for days, want := range map[int]int{0: 1, 119: 1, 121: 0} {
			late, err := pki.OpenCA(a.dir, pki.Options{Now: at(now.AddDate(0, 0, days))})
			require.NoError(t, err)
			crl, err := late.RenewCRL()
			require.NoError(t, err)
			require.Equal(t, want, crl.Len(), "after %d days", days)
		}
	})
}

func TestRenewRaisesTheNumber(t *testing.T) {
	a := newAuthority(t, "demo")
	for want := int64(2); want < 5; want++ {
		crl, err := a.RenewCRL()
		require.NoError(t, err)
		require.Equal(t, want, crl.Number.Int64())
		onDisk, err := a.CRL()
		require.NoError(t, err)
		require.Equal(t, crl.PEM, onDisk.PEM)
	}
}

// signCRL makes list number 1000 after change has had its way with it.
func (a authority) signCRL(t testing.TB, change func(*x509.RevocationList)) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1000), ThisUpdate: now, NextUpdate: now.AddDate(0, 0, 30)}
	if change != nil {
		change(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.Cert(), a.key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func TestPut(t *testing.T) {
	a, other := newAuthority(t, "demo"), newAuthority(t, "demo")
	good := a.signCRL(t, nil)
	block, _ := pem.Decode(good)
	number := func(n int64) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) { l.Number = big.NewInt(n) }
	}
	delta := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	for name, c := range map[string]struct {
		data []byte
		rule string
	}{
		"PEM":                       {good, ""},
		"DER":                       {block.Bytes, ""},
		"next number":               {a.signCRL(t, number(2)), ""},
		"already expired, but new":  {a.signCRL(t, func(l *x509.RevocationList) { l.ThisUpdate, l.NextUpdate = now.Add(-2), now.Add(-1) }), ""},
		"a little ahead":            {a.signCRL(t, func(l *x509.RevocationList) { l.ThisUpdate = now.Add(4 * time.Minute) }), ""},
		"same number":               {a.signCRL(t, number(1)), "number 1 is not above 1"},
		"another CA of that name":   {other.signCRL(t, nil), "not signed by this cluster's CA"},
		"from the future":           {a.signCRL(t, func(l *x509.RevocationList) { l.ThisUpdate = now.Add(time.Hour) }), "1h0m0s ahead of this clock"},
		"delta list":                {a.signCRL(t, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{delta} }), "critical extension 2.5.29.27"},
		"empty":                     {nil, "not a revocation list"},
		"text":                      {[]byte("hello"), "not a revocation list"},
		"flipped bit":               {flip(block.Bytes), "."},
		"too long":                  {make([]byte, pki.MaxCRL+1), "at most 1048576 are allowed"},
		"two PEM blocks":            {append(append([]byte{}, good...), good...), "more than one PEM block"},
		"a certificate":             {a.CertPEM(), `PEM block is "CERTIFICATE"`},
		"DER with something behind": {append(append([]byte{}, block.Bytes...), 0), "bytes follow it"},
	} {
		t.Run(name, func(t *testing.T) {
			s := a.store(t)
			crl, err := s.Put(c.data, now)
			if c.rule == "" {
				require.NoError(t, err)
				require.Same(t, crl, s.Current())
				return
			}
			requireCode(t, err, pki.CodeCRL, c.rule)
			require.EqualValues(t, 1, s.Current().Number.Int64(), "the old list must stay in force")
		})
	}
}

func flip(data []byte) []byte {
	data = append([]byte{}, data...)
	data[len(data)/3] ^= 1
	return data
}

func TestPutIsDurable(t *testing.T) {
	a := newAuthority(t, "demo")
	path := filepath.Join(t.TempDir(), "crl.pem")
	s, err := pki.OpenCRLStore(path, a.Cert())
	require.NoError(t, err)
	require.Nil(t, s.Current())
	_, err = s.Put(a.signCRL(t, nil), now)
	require.NoError(t, err)

	again, err := pki.OpenCRLStore(path, a.Cert())
	require.NoError(t, err)
	require.EqualValues(t, 1000, again.Current().Number.Int64())

	t.Run("a disk error leaves the old list in force", func(t *testing.T) {
		gone, err := pki.OpenCRLStore(filepath.Join(t.TempDir(), "no", "crl.pem"), a.Cert())
		require.NoError(t, err)
		_, err = gone.Put(a.signCRL(t, nil), now)
		require.ErrorContains(t, err, "storing revocation list")
		require.Nil(t, gone.Current())
	})
	t.Run("a spoiled file is an error at start", func(t *testing.T) {
		require.NoError(t, os.WriteFile(path, []byte("hello"), 0o644))
		_, err := pki.OpenCRLStore(path, a.Cert())
		requireCode(t, err, pki.CodeCRL, "not a revocation list")
		require.ErrorContains(t, err, path)
	})
}

func TestListAge(t *testing.T) {
	a := newAuthority(t, "demo")
	s := a.store(t)
	day := 24 * time.Hour
	for _, c := range []struct {
		after time.Duration
		warns string
	}{
		{0, ""}, {19 * day, ""}, {21 * day, "expires on 2026-12-20"}, {31 * day, "everybody is refused"},
	} {
		require.Equal(t, c.after, s.Age(now.Add(c.after)))
		require.Equal(t, 30*day-c.after, s.Remaining(now.Add(c.after)))
		if c.warns == "" {
			require.Empty(t, s.Warn(now.Add(c.after)))
			continue
		}
		require.Contains(t, s.Warn(now.Add(c.after)), c.warns)
	}
	empty, err := pki.OpenCRLStore(filepath.Join(t.TempDir(), "crl.pem"), a.Cert())
	require.NoError(t, err)
	require.Contains(t, empty.Warn(now), "no revocation list")
	require.Zero(t, empty.Age(now))
	require.Zero(t, empty.Remaining(now))
}
