package pki_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/pki"
)

// corpusTime is within the life of the certificates in the corpus, which the
// CA in testdata/ca.pem signed. Its key is gone.
var corpusTime = time.Date(2026, 11, 20, 21, 0, 0, 0, time.UTC)

// FuzzPEM reads any text as the parameter that carries a client's certificate.
// What is accepted is the only form of that certificate, and speaks for one id.
func FuzzPEM(f *testing.F) {
	ca, err := pki.LoadCA(filepath.Join("testdata", "ca.pem"))
	require.NoError(f, err)
	v := &pki.Verifier{CA: ca}
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, err := pki.ParseCertPEM(data)
		if err != nil {
			var e *pki.Error
			require.True(t, errors.As(err, &e))
			require.Equal(t, pki.CodeCertificate, e.Code)
			return
		}
		require.Equal(t, bytes.TrimSuffix(pki.EncodeCert(cert), []byte("\n")), bytes.TrimSuffix(data, []byte("\n")))
		id, err := v.Judge(cert, corpusTime)
		if err != nil {
			require.Zero(t, id)
			return
		}
		require.NoError(t, cert.CheckSignatureFrom(ca))
		require.False(t, cert.IsCA)
		require.Equal(t, "demo", id.Cluster)
		require.NotEqual(t, pki.RoleFront, id.Role)
		again, err := pki.ParseURI(id.String())
		require.NoError(t, err)
		require.Equal(t, id, again)
	})
}

// FuzzCRL reads anything as a list that somebody delivers.
func FuzzCRL(f *testing.F) {
	ca, err := pki.LoadCA(filepath.Join("testdata", "ca.pem"))
	require.NoError(f, err)
	good, err := os.ReadFile(filepath.Join("testdata", "crl.pem"))
	require.NoError(f, err)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		crl, err := pki.ParseCRL(data, ca)
		if err != nil {
			var e *pki.Error
			require.True(t, errors.As(err, &e))
			require.Equal(t, pki.CodeCRL, e.Code)
			return
		}
		require.Positive(t, crl.Number.Sign())
		for _, form := range [][]byte{crl.PEM, crl.DER} {
			again, err := pki.ParseCRL(form, ca)
			require.NoError(t, err)
			require.Equal(t, crl, again)
		}
	})
}

// FuzzID reads any text as an id: what is accepted has no other spelling.
func FuzzID(f *testing.F) {
	for _, s := range []string{"spiffe://demo/node/alpha", "spiffe://demo/operator/a%6en", "SPIFFE://demo/node/a", "spiffe://demo/node/", "spiffe:///node/a", "spiffe://demo/front/a..b", "spiffe://demo/admin/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := pki.ParseURI(s)
		if err != nil {
			require.Zero(t, id)
			return
		}
		require.Equal(t, s, id.String())
		require.NoError(t, pki.CheckName("name", id.Name))
		require.NoError(t, pki.CheckName("cluster", id.Cluster))
	})
}
