package access_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/access"
	"gantry/config"
	"gantry/pki"
)

const secret = "4f1c9a7e2b60d85310fe8c27ab94d6e1"

func TestToken(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "token"), []byte(secret+"\n"), 0o600)
	token, err := access.LoadToken(path)
	require.NoError(t, err)
	require.NoError(t, token.Check(params{"GANTRY_FRONT_TOKEN": secret}))
	for name, p := range map[string]params{
		"none":                   {},
		"empty":                  {"GANTRY_FRONT_TOKEN": ""},
		"another":                {"GANTRY_FRONT_TOKEN": strings.Replace(secret, "4", "5", 1)},
		"a beginning":            {"GANTRY_FRONT_TOKEN": secret[:31]},
		"more":                   {"GANTRY_FRONT_TOKEN": secret + "0"},
		"with its line feed":     {"GANTRY_FRONT_TOKEN": secret + "\n"},
		"as a client's header":   {"HTTP_GANTRY_FRONT_TOKEN": secret},
		"in another letter case": {"GANTRY_FRONT_TOKEN": strings.ToUpper(secret)},
	} {
		t.Run(name, func(t *testing.T) {
			err := token.Check(p)
			requireWire(t, err, "front_not_trusted", "the front did not present its token")
			require.NotContains(t, err.Error(), secret[:8])
		})
	}
	var none *access.Token
	require.NoError(t, none.Check(params{}), "no token configured: none asked for")
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", token, *token, token), secret)
}

func TestTokenFileRefused(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"H125 readable by others": {secret, 0o644, "run: chmod 600"},
		"too short":               {secret[:31], 0o600, "has 31 characters, at least 32 are needed; make one: openssl rand -hex 32 >"},
		"too long":                {strings.Repeat(secret, 17), 0o600, "at most 512"},
		"guessable":               {strings.Repeat("ab", 20), 0o600, "only 2 different characters"},
		"two lines":               {secret + "\n" + secret, 0o600, `contains '\n'`},
		"a quote":                 {secret + `"`, 0o600, `contains '"'`},
		"a dollar":                {secret + `$x`, 0o600, `contains '$'`},
		"empty":                   {"", 0o600, "has 0 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := access.LoadToken(write(t, filepath.Join(t.TempDir(), "token"), []byte(c.text), c.mode))
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), secret[:8], "the error repeats the secret")
		})
	}
	_, err := access.LoadToken(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// files is a node's configuration with everything that it names, in a folder.
func files(t *testing.T, s scene) (dir string, n *config.Node) {
	t.Helper()
	dir = t.TempDir()
	leaf := s.issue(t, pki.RoleNode, "alpha")
	crl, err := s.ca.CRL()
	require.NoError(t, err)
	write(t, filepath.Join(dir, "ca.pem"), s.ca.CertPEM(), 0o644)
	write(t, filepath.Join(dir, "cert.pem"), leaf.CertPEM, 0o644)
	write(t, filepath.Join(dir, "key.pem"), leaf.KeyPEM, 0o600)
	write(t, filepath.Join(dir, "crl.pem"), crl.PEM, 0o644)
	write(t, filepath.Join(dir, "token"), []byte(secret), 0o600)
	write(t, filepath.Join(dir, "cluster.toml"), []byte("name = \"demo\"\n[[node]]\nname = \"alpha\"\nurl = \"https://alpha\"\n"), 0o644)
	text := strings.ReplaceAll(`name = "alpha"
socket = "DIR/s"
dir = "DIR/state"
cluster = "DIR/cluster.toml"
[identity]
ca = "DIR/ca.pem"
cert = "DIR/cert.pem"
key = "DIR/key.pem"
crl = "DIR/crl.pem"
[front]
kind = "embedded"
uids = [58261]
token_file = "DIR/token"
[[grant]]
who = "spiffe://demo/operator/*"
may = ["status"]
`, "DIR", dir)
	n, err = config.LoadNode(write(t, filepath.Join(dir, "node.toml"), []byte(text), 0o644))
	require.NoError(t, err)
	return dir, n
}

func TestOpen(t *testing.T) {
	s := newScene(t, "demo")
	_, n := files(t, s)
	g, err := access.Open(n, nil)
	require.NoError(t, err)
	require.Equal(t, "spiffe://demo/node/alpha", g.Identity.ID.String())
	require.NotNil(t, g.CRL.Current())
	require.NotNil(t, g.Token)
	require.Equal(t, "demo", g.Cluster.Name)
	caller, err := access.Identify(request(s.issue(t, pki.RoleOperator, "ann")), g.Verifier, now)
	require.NoError(t, err)
	require.NoError(t, g.Policy.Allows(caller, "status", ""))

	t.Run("without list and cluster", func(t *testing.T) {
		dir, n := files(t, s)
		require.NoError(t, os.Remove(filepath.Join(dir, "crl.pem")))
		n.Cluster, n.Front.TokenFile = "", ""
		g, err := access.Open(n, nil)
		require.NoError(t, err, "a node without list starts, and refuses")
		require.Nil(t, g.CRL.Current())
		require.Nil(t, g.Token)
		require.Nil(t, g.Cluster)
		_, err = access.Identify(request(s.issue(t, pki.RoleOperator, "ann")), g.Verifier, now)
		requireWire(t, err, "crl_stale", "there is no revocation list")
	})
}

func TestOpenRefuses(t *testing.T) {
	s, other := newScene(t, "demo"), newScene(t, "prod")
	beta := s.issue(t, pki.RoleNode, "beta")
	master := s.issue(t, pki.RoleMaster, "alpha")
	for _, c := range []struct {
		name   string
		change func(dir string, n *config.Node)
		want   string
	}{
		{"H125 key readable by others", func(dir string, n *config.Node) {
			require.NoError(t, os.Chmod(n.Identity.Key, 0o644))
		}, ":8: identity.key: DIR/key.pem is readable or writable by group or others (mode 0644); run: chmod 600 DIR/key.pem"},
		{"H125 token readable by others", func(dir string, n *config.Node) {
			require.NoError(t, os.Chmod(n.Front.TokenFile, 0o640))
		}, ":13: front.token_file: DIR/token is readable"},
		{"H129 empty client CA", func(dir string, n *config.Node) { write(t, n.Identity.CA, nil, 0o644) }, ":6: identity.ca: DIR/ca.pem: certificate refused: empty"},
		{"no certificate", func(dir string, n *config.Node) { require.NoError(t, os.Remove(n.Identity.Cert)) }, ":7: identity.cert: "},
		{"another node's certificate", func(dir string, n *config.Node) {
			write(t, n.Identity.Cert, beta.CertPEM, 0o644)
			write(t, n.Identity.Key, beta.KeyPEM, 0o600)
		}, ":7: identity.cert: the certificate is of spiffe://demo/node/beta, this node is spiffe://demo/node/alpha; make one: gantry ca issue node alpha"},
		{"a master's certificate", func(dir string, n *config.Node) {
			write(t, n.Identity.Cert, master.CertPEM, 0o644)
			write(t, n.Identity.Key, master.KeyPEM, 0o600)
		}, ":7: identity.cert: the certificate is of spiffe://demo/master/alpha"},
		{"another CA's list", func(dir string, n *config.Node) {
			crl, err := other.ca.CRL()
			require.NoError(t, err)
			write(t, n.Identity.CRL, crl.PEM, 0o644)
		}, ":9: identity.crl: DIR/crl.pem: revocation list refused: not signed by this cluster's CA; copy crl.pem"},
		{"another cluster's CA", func(dir string, n *config.Node) { write(t, n.Identity.CA, other.ca.CertPEM(), 0o644) }, ":8: identity.key: DIR/cert.pem: "},
		{"a grant to another cluster", func(dir string, n *config.Node) { n.Grants[0].Who = "spiffe://prod/operator/*" },
			`:15: grant[0].who: "spiffe://prod/operator/*" is not of cluster "demo"`},
		{"another cluster's list of nodes", func(dir string, n *config.Node) {
			write(t, n.Cluster, []byte("name = \"prod\"\n[[node]]\nname = \"alpha\"\nurl = \"https://alpha\"\n"), 0o644)
		}, `:4: cluster: DIR/cluster.toml is the list of cluster "prod", the CA's is "demo"`},
		{"a spoiled list of nodes", func(dir string, n *config.Node) { write(t, n.Cluster, []byte("nam = 1\n"), 0o644) }, `:4: cluster: DIR/cluster.toml:1: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, n := files(t, s)
			c.change(dir, n)
			g, err := access.Open(n, nil)
			require.Nil(t, g)
			require.ErrorContains(t, err, filepath.Join(dir, "node.toml")+strings.ReplaceAll(c.want, "DIR", dir))
		})
	}
}
