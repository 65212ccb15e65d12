package node_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/config"
	"gantry/node"
	"gantry/pki"

	"github.com/stretchr/testify/require"
)

func TestStaleRevocationList(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	// A list that was made long ago, by the same CA.
	old, err := pki.OpenCA(filepath.Join(w.dir, "ca"), pki.Options{Now: func() time.Time { return time.Now().Add(-60 * 24 * time.Hour) }})
	require.NoError(t, err)
	stale, err := old.RenewCRL()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(alpha.dir, "crl.pem"), stale.PEM, 0o644))
	alpha.start()
	put := func(text []byte) reply {
		block, _ := pem.Decode(text)
		return alpha.ask("bob", "PUT", "/crl", map[string]string{"Content-Type": api.TypeCRL}, string(block.Bytes))
	}

	for _, route := range []string{"/status", "/resources", "/tasks", "/tasks/" + api.NewID()} {
		r := alpha.ask("ann", "GET", route, nil, "")
		require.Equal(t, 403, r.status, route)
		require.Equal(t, "crl_stale", r.problem.Code, route)
	}
	require.Equal(t, "crl_refused", put(stale.PEM).problem.Code, "the same number")
	forged := pki.Options{}
	other, err := pki.InitCA(filepath.Join(w.dir, "other"), "demo", forged)
	require.NoError(t, err)
	var foreign *pki.CRL
	for range 9 {
		foreign, err = other.RenewCRL()
		require.NoError(t, err)
	}
	require.Equal(t, "crl_refused", put(foreign.PEM).problem.Code, "another CA's")
	require.Equal(t, 403, alpha.ask("ann", "GET", "/status", nil, "").status)

	now, err := pki.OpenCA(filepath.Join(w.dir, "ca"), pki.Options{})
	require.NoError(t, err)
	fresh, err := now.RenewCRL()
	require.NoError(t, err)
	r := put(fresh.PEM)
	require.Equal(t, 200, r.status, r.body)
	require.Equal(t, 200, alpha.ask("ann", "GET", "/status", nil, "").status)
	require.Equal(t, "crl_refused", put(stale.PEM).problem.Code, "back to the old one")

	t.Run("a revoked caller", func(t *testing.T) {
		revoked, err := now.Revoke(serialOf(w.ids["bob"].Cert.Leaf))
		require.NoError(t, err)
		require.Equal(t, 200, put(revoked.PEM).status)
		require.Equal(t, "certificate_revoked", alpha.ask("bob", "GET", "/status", nil, "").problem.Code)
		require.Equal(t, "certificate_revoked", put(fresh.PEM).problem.Code)
		alpha.restart()
		require.Equal(t, "certificate_revoked", alpha.ask("bob", "GET", "/status", nil, "").problem.Code, "after a restart")
		require.Equal(t, 200, alpha.ask("ann", "GET", "/status", nil, "").status)
	})
	t.Run("too many lists", func(t *testing.T) {
		for range 20 {
			r = alpha.ask("ann", "PUT", "/crl", map[string]string{"Content-Type": api.TypeCRL}, "nonsense")
		}
		require.Equal(t, "too_many", r.problem.Code)
		// Or whoever is to be revoked could keep the list away.
		next, err := now.RenewCRL()
		require.NoError(t, err)
		block, _ := pem.Decode(next.PEM)
		r = alpha.ask("hub", "PUT", "/crl", map[string]string{"Content-Type": api.TypeCRL}, string(block.Bytes))
		require.Equal(t, 200, r.status, "another caller: %s", r.body)
	})
}

// pemOf is a certificate as a front passes it on.
func pemOf(id *pki.Identity) []byte { return pki.EncodeCert(id.Cert.Leaf) }

func serialOf(c *x509.Certificate) string {
	text := c.SerialNumber.Text(16)
	return strings.Repeat("0", 32-len(text)) + text
}

func TestFrontToken(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	secret := api.NewTicket()
	token := w.write("alpha/token", secret, 0o600)
	text, err := os.ReadFile(alpha.config)
	require.NoError(t, err)
	with := strings.Replace(string(text), "kind = \"embedded\"\n", "kind = \"embedded\"\ntoken_file = \""+token+"\"\n", 1)
	require.NoError(t, os.WriteFile(alpha.config, []byte(with), 0o644))
	alpha.start()
	for _, who := range []string{"ann", "bob"} {
		r := alpha.ask(who, "GET", "/status", map[string]string{"Gantry-Front-Token": secret}, "")
		require.Equal(t, 403, r.status)
		require.Equal(t, "front_not_trusted", r.problem.Code)
		require.NotContains(t, r.body, secret)
	}
	require.NotContains(t, alpha.log.String(), secret)
	require.NoError(t, node.Probe(t.Context(), alpha.config), "the probe needs no token")
}

func TestReadableKeysAreRefused(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"]
	key := filepath.Join(alpha.dir, "node", "key.pem")
	require.NoError(t, node.Check(alpha.config))
	for _, mode := range []os.FileMode{0o604, 0o640, 0o660, 0o644} {
		require.NoError(t, os.Chmod(key, mode))
		err := node.Check(alpha.config)
		require.ErrorContains(t, err, key)
		require.ErrorContains(t, err, "node.toml:")
		cfg, err := config.LoadNode(alpha.config)
		if err == nil {
			_, err = node.New(cfg, node.Options{})
		}
		require.Error(t, err, mode)
	}
}

func TestOneResponderPerFolder(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	cfg, err := config.LoadNode(alpha.config)
	require.NoError(t, err)
	_, err = node.New(cfg, node.Options{})
	require.ErrorContains(t, err, "used by another responder")
}

func TestNewerFormatIsRefused(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	alpha.halt()
	path := filepath.Join(alpha.dir, "state/dir.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"v":2,"dir_id":"x"}`), 0o600))
	cfg, err := config.LoadNode(alpha.config)
	require.NoError(t, err)
	_, err = node.New(cfg, node.Options{})
	require.ErrorContains(t, err, "format version 2")
}
