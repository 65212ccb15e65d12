package config_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/config"
)

// baseMaster is a small valid configuration whose lines the rows below replace.
const baseMaster = `name = "hub"
socket = "/run/gantry-master/fcgi.sock"
dir = "/var/lib/gantry-master"
cluster = "/etc/gantry/cluster.toml"
[identity]
ca = "/etc/gantry/ca.pem"
cert = "/etc/gantry/cert.pem"
key = "/etc/gantry/key.pem"
crl = "/var/lib/gantry-master/crl.pem"
[front]
kind = "nginx"
uids = [58261]
[[grant]]
who = "local:1000"
may = ["status", "jobs"]
`

func withMaster(t testing.TB, old, new string) string {
	t.Helper()
	require.Contains(t, baseMaster, old)
	return strings.Replace(baseMaster, old, new, 1)
}

func TestMinimalMaster(t *testing.T) {
	m, err := config.ParseMaster("master.toml", []byte(baseMaster))
	require.NoError(t, err)
	require.Equal(t, "/var/lib/gantry-master/master.db", m.Store)
	require.Equal(t, config.SocketOwn, m.From)
	require.Empty(t, m.LocalSocket)
	require.Equal(t, []config.Grant{{Who: "local:1000", May: []string{"status", "jobs"}}}, m.Grants)
	require.Equal(t, config.MasterDefaults(), m.Limits)
	require.Equal(t, config.RetentionDefaults(), m.Retention)
	require.ErrorContains(t, m.Explain("identity.key", errors.New("is lost")), "master.toml:8: identity.key: is lost")
}

func TestExampleMaster(t *testing.T) {
	m, err := config.LoadMaster(filepath.Join("testdata", "master.toml"))
	require.NoError(t, err)
	_, err = config.ParseMaster("example", []byte(config.ExampleMaster()))
	require.NoError(t, err)
	require.Equal(t, []config.NodeSlots{{Name: "alpha", Jobs: 8}}, m.Slots)
	limit, ok := m.Limit("uplink")
	require.True(t, ok)
	require.Equal(t, config.NamedLimit{Name: "uplink", Jobs: 2}, limit)
	_, ok = m.Limit("downlink")
	require.False(t, ok)
	require.Equal(t, []string{"*"}, m.Grants[0].Nodes)
	// The values that the example shows as defaults are the defaults.
	want := config.MasterDefaults()
	want.Slots = 4
	require.Equal(t, want, m.Limits)
	require.Equal(t, config.Retention{Age: 365 * 24 * time.Hour, Size: 10 << 30}, m.Retention)
	require.Equal(t, config.RetentionDefaults(), m.Retention)
}

func TestMasterRefuses(t *testing.T) {
	long := "/" + strings.Repeat("x", 107)
	grant := func(lines string) string { return baseMaster + "[[grant]]\n" + lines }
	for _, c := range []struct{ name, text, want string }{
		{"H122 unknown key", withMaster(t, "[identity]", "colour = \"red\"\n[identity]"),
			`master.toml:5: colour: is unknown; allowed: name, socket, socket_from, local_socket, dir, store, cluster, identity, front, grant, limits, node, limit, retention`},
		{"H122 a node's key", withMaster(t, "uids =", "data_listen = [\"[::]:1\"]\nuids ="), `master.toml:12: front.data_listen: is unknown`},
		{"H122 nearly a key", baseMaster + "[retention]\nages = \"1d\"\n", `master.toml:17: retention.ages: is unknown, did you mean age?; allowed: age, size`},
		{"H123 key twice", withMaster(t, "[identity]", "name = \"x\"\n[identity]"), `master.toml:5: name: `},
		{"H124 wrong unit", baseMaster + "[retention]\nage = \"1year\"\n", `master.toml:17: retention.age: "1year" has the unknown unit "year"`},
		{"H124 no unit", baseMaster + "[limits]\nretry_for = \"90\"\n", `master.toml:17: limits.retry_for: "90" has no unit`},
		{"H131 pause below its least", baseMaster + "[limits]\nretry_after = \"500ms\"\n", `master.toml:17: limits.retry_after: is 500ms: a node that is starting again needs a moment; allowed: 1s to 10m`},
		{"H131 pause above its most", baseMaster + "[limits]\nretry_after = \"11m\"\n", `limits.retry_after: is "11m"; allowed: above 0, at most 10m`},
		{"H126 socket path of 108 bytes", withMaster(t, "/run/gantry-master/fcgi.sock", long), `master.toml:2: socket: is 108 bytes long; allowed: at most 107 bytes`},
		{"H126 local socket path of 108 bytes", withMaster(t, "dir =", "local_socket = \""+long+"\"\ndir ="), `master.toml:3: local_socket: is 108 bytes long`},
		{"H127 relative path", withMaster(t, "[identity]", "store = \"master.db\"\n[identity]"), `master.toml:5: store: "master.db" is relative`},
		{"H131 limit of 0", baseMaster + "[limits]\nslots = 0\n", `master.toml:17: limits.slots: is 0; allowed: 1 to 100000`},
		{"H131 named limit of 0", baseMaster + "[[limit]]\nname = \"a\"\njobs = 0\n", `master.toml:18: limit[0].jobs: is 0; allowed: 1 to`},
		{"named limit without a number", baseMaster + "[[limit]]\nname = \"a\"\n", `limit[0].jobs: is missing; allowed: 1 to 100000; example: jobs = 2`},
		{"H132 tab", withMaster(t, "name = ", "name =\t"), `master.toml:1: the line contains a tab`},
		{"one socket for two", withMaster(t, "dir =", "local_socket = \"/run/gantry-master/fcgi.sock\"\ndir ="), `local_socket: is the FastCGI socket`},
		{"no cluster", withMaster(t, "cluster =", "#"), `cluster: is missing; allowed: an absolute path`},
		{"node twice", baseMaster + "[[node]]\nname = \"a\"\nslots = 1\n[[node]]\nname = \"a\"\nslots = 1\n", `master.toml:20: node[1].name: "a" is the name of another node`},
		{"limit twice", baseMaster + "[[limit]]\nname = \"a\"\njobs = 1\n[[limit]]\nname = \"a\"\njobs = 1\n", `master.toml:20: limit[1].name: "a" is the name of another limit`},
		{"user by name", grant("who = \"local:ann\"\nmay = [\"status\"]\n"), `master.toml:17: grant[1].who: "ann" is no uid; numbers only`},
		{"user with a sign", grant("who = \"local:+1\"\nmay = [\"status\"]\n"), `"+1" is no uid`},
		{"user nobody", grant("who = \"local:65534\"\nmay = [\"status\"]\n"), `65534 is nobody in particular`},
		{"user 2^32-1", grant("who = \"local:4294967295\"\nmay = [\"status\"]\n"), `is no uid`},
		{"all users", grant("who = \"local:*\"\nmay = [\"status\"]\n"), `"*" is no uid`},
		{"a front as caller", grant("who = \"spiffe://demo/front/x\"\nmay = [\"status\"]\n"), `a front is never a caller`},
		{"no right", grant("who = \"local:1\"\nmay = []\n"), `grant[1].may: names no right`},
		{"nearly a right", grant("who = \"local:1\"\nmay = [\"job\"]\n"), `"job" is no right, did you mean jobs?`},
		{"a right without nodes", grant("who = \"local:1\"\nmay = [\"export\"]\nresources = [\"*\"]\n"), `grant[1].nodes: is missing, and the right "export" is about a resource of a node`},
		{"a right without resources", grant("who = \"local:1\"\nmay = [\"export\"]\nnodes = [\"*\"]\n"), `grant[1].resources: is missing`},
		{"all and one", grant("who = \"local:1\"\nmay = [\"export\"]\nnodes = [\"*\", \"a\"]\nresources = [\"*\"]\n"), `"*" stands beside names`},
		{"a node that is no name", grant("who = \"local:1\"\nmay = [\"export\"]\nnodes = [\"A\"]\nresources = [\"*\"]\n"), `"A" is no name`},
		{"user is reserved", grant("who = \"local:1\"\nmay = [\"status\"]\nuser = \"x\"\n"), `grant[1].user: is reserved`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.ParseMaster("master.toml", []byte(c.text))
			require.ErrorContains(t, err, c.want)
			checkErrors(t, []byte(c.text), err)
		})
	}
	for _, c := range []struct{ name, text, want string }{
		{"master twice", "[[master]]\nname = \"m\"\nurl = \"https://m\"\n[[master]]\nname = \"m\"\nurl = \"https://m\"\n", `master[1].name: "m" is the name of another master`},
		{"master with data", "[[master]]\nname = \"m\"\nurl = \"https://m\"\ndata_url = \"https://m\"\n", `master[0].data_url: is unknown`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.ParseCluster("c", []byte("name = \"demo\"\n[[node]]\nname = \"a\"\nurl = \"https://a\"\n"+c.text))
			require.ErrorContains(t, err, c.want)
		})
	}
}

// FuzzMasterConfig reads any text as a master's configuration. What is accepted
// keeps the promises that other packages build on.
func FuzzMasterConfig(f *testing.F) {
	f.Add([]byte(config.ExampleMaster()))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := config.ParseMaster("f", data)
		if err != nil {
			checkErrors(t, data, err)
			return
		}
		for _, p := range []string{m.Socket, m.Dir, m.Store, m.Cluster, m.Identity.CA, m.Identity.Cert, m.Identity.Key, m.Identity.CRL} {
			require.True(t, filepath.IsAbs(p) && filepath.Clean(p) == p, "%q", p)
		}
		require.LessOrEqual(t, len(m.Socket), config.MaxSocketPath)
		require.LessOrEqual(t, len(m.LocalSocket), config.MaxSocketPath)
		require.NotEqual(t, m.Socket, m.LocalSocket)
		require.NotEmpty(t, m.Front.UIDs)
		require.NotContains(t, m.Front.UIDs, uint32(65534))
		l := m.Limits
		for _, v := range []int64{int64(l.Queued), int64(l.Connections), int64(l.Heartbeat), int64(l.RetryFor), int64(l.Drain), int64(m.Retention.Age), m.Retention.Size} {
			require.Positive(t, v)
		}
		for _, g := range m.Grants {
			require.NotEmpty(t, g.May)
			for _, may := range g.May {
				require.Contains(t, config.MasterRights, may)
				if config.NeedsResource(may) {
					require.NotEmpty(t, g.Nodes)
					require.NotEmpty(t, g.Resources)
				}
			}
		}
		for _, n := range m.Named {
			found, ok := m.Limit(n.Name)
			require.True(t, ok)
			require.Equal(t, n, found)
		}
	})
}
