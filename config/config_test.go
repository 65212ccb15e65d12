package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/config"
	"gantry/internal/testkit"
	"gantry/nodeset"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// base is a small valid configuration whose lines the rows below replace.
const base = `name = "alpha"
socket = "/run/gantry/node.sock"
dir = "/var/lib/gantry"
[identity]
ca = "/etc/gantry/ca.pem"
cert = "/etc/gantry/cert.pem"
key = "/etc/gantry/key.pem"
crl = "/var/lib/gantry/crl.pem"
[front]
kind = "nginx"
uids = [58261]
[[resource]]
name = "disks"
kind = "files"
path = "/srv/disks"
[[grant]]
who = "spiffe://demo/operator/*"
may = ["status", "export"]
resources = ["disks"]
`

// with replaces text in base, which must be there.
func with(t testing.TB, old, new string) string {
	t.Helper()
	require.Contains(t, base, old)
	return strings.Replace(base, old, new, 1)
}

func TestMinimalNode(t *testing.T) {
	n, err := config.ParseNode("node.toml", []byte(base))
	require.NoError(t, err)
	require.Equal(t, "alpha", n.Name)
	require.Equal(t, config.Identity{CA: "/etc/gantry/ca.pem", Cert: "/etc/gantry/cert.pem", Key: "/etc/gantry/key.pem", CRL: "/var/lib/gantry/crl.pem"}, n.Identity)
	require.Equal(t, config.Front{Kind: "nginx", UIDs: []uint32{58261}}, n.Front)
	require.Equal(t, []config.Resource{{Name: "disks", Kind: "files", Path: "/srv/disks", Mode: 0o640, Send: "stream", Direct: "auto"}}, n.Resources)
	require.Equal(t, []config.Grant{{Who: "spiffe://demo/operator/*", May: []string{"status", "export"}, Resources: []string{"disks"}}}, n.Grants)
	require.Equal(t, config.Defaults(), n.Limits)
	r, ok := n.Resource("disks")
	require.True(t, ok)
	require.Equal(t, "/srv/disks", r.Path)
	_, ok = n.Resource("tapes")
	require.False(t, ok)
}

func TestExampleNode(t *testing.T) {
	n, err := config.LoadNode(filepath.Join("testdata", "node.toml"))
	require.NoError(t, err)
	again, err := config.ParseNode("example", []byte(config.ExampleNode()))
	require.NoError(t, err)
	require.Equal(t, n.Front, again.Front)

	require.Equal(t, "/etc/gantry/cluster.toml", n.Cluster)
	require.Equal(t, "/etc/gantry/front.token", n.Front.TokenFile)
	require.Equal(t, []string{"192.0.2.7:8443", "[2001:db8::7]:8443"}, n.Front.APIListen)
	require.Equal(t, []string{"10.0.0.7:8444"}, n.Front.DataListen)
	require.Len(t, n.Resources, 5)
	require.True(t, n.Resources[0].Writable)
	require.False(t, n.Resources[3].Writable)
	require.Equal(t, &config.Tree{Special: config.SpecialSkip, Xattrs: config.XattrsNone, Owner: config.OwnerIgnore, SetID: config.SetIDDrop}, n.Resources[4].Tree)
	require.Len(t, n.Grants, 2)
	// The values that the example shows as defaults are the defaults.
	require.Equal(t, config.Defaults(), n.Limits)
}

func TestExampleCluster(t *testing.T) {
	c, err := config.LoadCluster(filepath.Join("testdata", "cluster.toml"))
	require.NoError(t, err)
	require.Equal(t, "demo", c.Name)
	alpha, ok := c.Node("alpha")
	require.True(t, ok)
	require.Equal(t, "https://10.0.0.7:8444", alpha.DataURL)
	require.Len(t, alpha.Pins, 3)
	require.Equal(t, []string{config.PinCurrent, config.PinNext, config.PinEmergency},
		[]string{alpha.PinRole(alpha.Pins[0]), alpha.PinRole(alpha.Pins[1]), alpha.PinRole(alpha.Pins[2])})
	require.Empty(t, alpha.PinRole("sha256:"+strings.Repeat("0", 64)))
	require.Empty(t, alpha.PinRole(""))
	require.Equal(t, []config.Group{{Name: "mail", Nodes: []string{"alpha", "beta"}}}, c.Groups)
	nodes, err := c.Select("@mail,!alpha")
	require.NoError(t, err)
	require.Equal(t, []string{"beta"}, nodes)
	beta, ok := c.Node("beta")
	require.True(t, ok)
	require.Equal(t, config.ClusterNode{Name: "beta", URL: "https://[2001:db8::8]:8443", DataURL: "https://[2001:db8::8]:8443"}, beta)
	_, ok = c.Node("gamma")
	require.False(t, ok)
	_, err = config.ParseCluster("example", []byte(config.ExampleCluster()))
	require.NoError(t, err)
}

// Every example says each key with its meaning above it.
func TestExamplesExplainEveryKey(t *testing.T) {
	for _, text := range []string{config.ExampleNode(), config.ExampleCluster()} {
		seen, explained := map[string]bool{}, false
		for line := range strings.Lines(text) {
			key, _, isKey := strings.Cut(line, "=")
			key = strings.TrimSpace(key)
			switch {
			case strings.HasPrefix(line, "#"):
				explained = true
			case strings.TrimSpace(line) == "":
				explained = false
			case isKey && !seen[key]:
				require.True(t, explained, "key %s has no comment in its block", key)
				seen[key] = true
			}
		}
	}
}

func TestNodeRefuses(t *testing.T) {
	long := "/" + strings.Repeat("x", 107)
	for _, c := range []struct{ name, text, want string }{
		{"H122 unknown key", with(t, "[identity]", "colour = \"red\"\n[identity]"),
			`node.toml:4: colour: is unknown; allowed: name, socket, socket_from, dir, cluster, identity, front, resource, grant, peer, limits`},
		{"H122 nearly a key", with(t, `kind = "nginx"`, "kind = \"nginx\"\ntokenfile = \"/x\""),
			`node.toml:11: front.tokenfile: is unknown, did you mean token_file?; allowed: kind, uids, token_file, api_listen, data_listen, padding, incremental`},
		{"H122 key in other case", with(t, "uids =", "UIDS = [1]\nuids ="),
			`node.toml:11: front.UIDS: is unknown`},
		{"H122 unknown table", base + "[limit]\ntasks = 3\n", `node.toml:20: limit: is unknown, did you mean limits?`},
		{"H122 unknown key in the second of a list", base + "[[grant]]\nwho = \"spiffe://demo/node/b\"\nmay = [\"status\"]\nwhom = 1\n",
			`node.toml:23: grant[1].whom: is unknown, did you mean who?; allowed: who, may, resources`},
		{"H122 unknown key that would break the line", base + "[limits]\n\"a\\nb\\u001b[31m\" = 1\n", `node.toml:21: limits.a\nb\x1b[31m: is unknown`},
		{"H123 key twice", with(t, "[identity]", "name = \"beta\"\n[identity]"), `node.toml:4: name: `},
		{"H123 table twice", base + "[front]\n", `node.toml:20: `},
		{"H124 wrong unit of size", base + "[limits]\njournal_per_task = \"16MB\"\n",
			`node.toml:21: limits.journal_per_task: "16MB" has the unknown unit "MB"; allowed: a whole number above 0 with unit B, KiB, MiB, GiB or TiB; example: journal_per_task = "16MiB"`},
		{"H124 wrong unit of time", base + "[limits]\nrun_for = \"2weeks\"\n",
			`node.toml:21: limits.run_for: "2weeks" has the unknown unit "weeks"; allowed: a whole number above 0 with unit ms, s, m, h or d; example: run_for = "7d"`},
		{"H124 no unit", base + "[limits]\nrun_for = \"60\"\n", `limits.run_for: "60" has no unit`},
		{"H124 a bare number", base + "[limits]\nrun_for = 60\n", `limits.run_for: is a number; allowed: a whole number above 0 with unit`},
		{"H124 a fraction", base + "[limits]\nrun_for = \"1.5h\"\n", `limits.run_for: "1.5h" has the unknown unit ".5h"`},
		{"H124 negative", base + "[limits]\nrun_for = \"-1h\"\n", `limits.run_for: "-1h" does not begin with a whole number`},
		{"H124 too large", base + "[limits]\nrun_for = \"99999999999999999999d\"\n", `limits.run_for: "99999999999999999999d" is too large`},
		{"H124 beyond the bound", base + "[limits]\nrun_for = \"4000d\"\n", `limits.run_for: is "4000d"; allowed: above 0, at most 3650d`},
		{"H124 heartbeat beyond the front's patience", base + "[limits]\nheartbeat = \"2m\"\n", `limits.heartbeat: is "2m"; allowed: above 0, at most 30s`},
		{"H126 socket path of 108 bytes", with(t, "/run/gantry/node.sock", long),
			`node.toml:2: socket: is 108 bytes long; allowed: at most 107 bytes, as unix(7) has room for; example: socket = "/run/gantry/node.sock"`},
		{"H127 relative path", with(t, "/srv/disks", "srv/disks"),
			`node.toml:15: resource[0].path: "srv/disks" is relative; allowed: an absolute path without ".."; example: path = "/srv/disks"`},
		{"H127 relative key", with(t, "/etc/gantry/key.pem", "key.pem"), `node.toml:7: identity.key: "key.pem" is relative`},
		{"H127 relative socket", with(t, "/run/gantry/node.sock", "node.sock"), `node.toml:2: socket: "node.sock" is relative`},
		{"H127 path that climbs", with(t, "/srv/disks", "/srv/../etc"), `resource[0].path: "/srv/../etc" is not in its shortest form, "/etc"`},
		{"H127 path with a final slash", with(t, "/srv/disks", "/srv/disks/"), `is not in its shortest form, "/srv/disks"`},
		{"H127 path with a NUL", with(t, "/srv/disks", `/srv/\u0000disks`), `contains a control character`},
		{"H127 the root", with(t, "/srv/disks", "/"), `resource[0].path: is the root of the file system`},
		{"H130 a resource in another", base + "[[resource]]\nname = \"vm\"\nkind = \"files\"\npath = \"/srv/disks/vm\"\n",
			`node.toml:23: resource[1].path: /srv/disks/vm overlaps with resource "disks", /srv/disks; allowed: directories outside of each other`},
		{"H130 the same twice", base + "[[resource]]\nname = \"vm\"\nkind = \"files\"\npath = \"/srv/disks\"\n", `resource[1].path: /srv/disks overlaps`},
		{"H130 a resource around another", base + "[[resource]]\nname = \"all\"\nkind = \"files\"\npath = \"/srv\"\n", `resource[1].path: /srv overlaps`},
		{"H130 a resource with the keys in it", with(t, "/srv/disks", "/etc"), `resource[0].path: /etc overlaps with identity.ca, /etc/gantry/ca.pem`},
		{"H130 a resource within dir", with(t, "/srv/disks", "/var/lib/gantry/disks"), `overlaps with dir, /var/lib/gantry`},
		{"H131 limit of 0", base + "[limits]\ntasks = 0\n", `node.toml:21: limits.tasks: is 0; allowed: 1 to 100000; example: tasks = 16`},
		{"H131 size of 0", base + "[limits]\njournal_per_node = \"0B\"\n", `limits.journal_per_node: is "0B"; allowed: above 0, at most 1TiB`},
		{"H131 time of 0", base + "[limits]\nstall_after = \"0s\"\n", `limits.stall_after: is "0s"; allowed: above 0`},
		{"H131 negative limit", base + "[limits]\nconnections = -1\n", `limits.connections: is -1`},
		{"H131 a task may not have more than the node", base + "[limits]\njournal_per_task = \"2GiB\"\n", `limits.journal_per_task: 2GiB is more than journal_per_node, 1GiB`},
		{"H124 a rate without unit", base + "[limits]\nbandwidth = \"1000\"\n", `limits.bandwidth: "1000" has no unit: 1000K is 1000 KiB per second; allowed: a number with unit K, M, G or T`},
		{"H124 a rate in MB", base + "[limits]\nbandwidth = \"50MB\"\n", `limits.bandwidth: "50MB" has the unknown unit "MB"`},
		{"H124 a rate that is a number", base + "[limits]\nbandwidth = 50\n", `limits.bandwidth: is a number`},
		{"H131 a rate that stops everything", base + "[[peer]]\nname = \"beta\"\nbandwidth = \"1K\"\n", `peer[0].bandwidth: "1K" is less than the least limit, 64K`},
		{"H122 a peer without a limit", base + "[[peer]]\nname = \"beta\"\n", `peer[0].bandwidth: is missing`},
		{"H123 a peer twice", base + strings.Repeat("[[peer]]\nname = \"beta\"\nbandwidth = \"1M\"\n", 2), `peer[1].name: "beta" is the name of another peer`},
		{"H122 a class of disk priority that is none", base + "[limits]\nio_priority = \"low\"\n", `limits.io_priority: "low" is unknown; allowed: idle, best-effort, normal`},
		{"H127 a hook that needs a shell", with(t, "[[grant]]", "snapshot = [\"snap\"]\nrelease = [\"/bin/true\"]\n[[grant]]"),
			`resource[0].snapshot[0]: "snap" is not the absolute path of a program: no shell looks for it`},
		{"H122 a hook as one text", with(t, "[[grant]]", "snapshot = \"/bin/snap create\"\nrelease = [\"/bin/true\"]\n[[grant]]"),
			`resource[0].snapshot: is a text; allowed: "reflink", or the absolute path of a program and its arguments`},
		{"H122 a hook of nothing", with(t, "[[grant]]", "snapshot = []\nrelease = [\"/bin/true\"]\n[[grant]]"), `resource[0].snapshot: has 0 elements`},
		{"H122 an argument that is a number", with(t, "[[grant]]", "snapshot = [\"/bin/snap\", 1]\nrelease = [\"/bin/true\"]\n[[grant]]"), `resource[0].snapshot[1]: is a number`},
		{"H122 an argument with a NUL", with(t, "[[grant]]", "snapshot = [\"/bin/snap\", \"a\\u0000b\"]\nrelease = [\"/bin/true\"]\n[[grant]]"), `resource[0].snapshot[1]: contains a NUL`},
		{"H122 a snapshot that nothing releases", with(t, "[[grant]]", "snapshot = [\"/bin/snap\"]\n[[grant]]"), `resource[0].release: is missing`},
		{"H122 a release of nothing", with(t, "[[grant]]", "release = [\"/bin/true\"]\n[[grant]]"), `resource[0].snapshot: is missing`},
		{"H122 a release of a clone", with(t, "[[grant]]", "snapshot = \"reflink\"\nrelease = [\"/bin/true\"]\n[[grant]]"), `resource[0].release: stands beside snapshot = "reflink"`},
		{"H124 a hook that may take days", with(t, "[[grant]]", "snapshot = \"reflink\"\nhook_timeout = \"2d\"\n[[grant]]"), `resource[0].hook_timeout: is "2d"; allowed: above 0, at most 30m`},
		{"H122 a time for no hook", with(t, "[[grant]]", "hook_timeout = \"2m\"\n[[grant]]"), `resource[0].hook_timeout: is of no use without snapshot`},
		{"H132 a tab before a key", with(t, "[identity]", "\t[identity]"), `node.toml:4: the line contains a tab; allowed: spaces`},
		{"H132 a tab in a value", with(t, "/srv/disks", "/srv/\tdisks"), `node.toml:15: the line contains a tab`},
		{"H132 a byte order mark", "\ufeff" + base, `node.toml:1: the file begins with a byte order mark; allowed: UTF-8 without one`},
		{"not UTF-8", with(t, "alpha", "alph\xe4"), `node.toml:1: the line is not UTF-8`},
		{"no TOML", with(t, "[front]", "[front"), `node.toml:9: `},
		{"a key without value", with(t, `kind = "nginx"`, "kind ="), `node.toml:10: `},
		{"too long", base + strings.Repeat("#", config.MaxFile), `node.toml:1: the file is longer than 2097152 bytes`},

		{"a name in upper case", with(t, `"alpha"`, `"Alpha"`), `node.toml:1: name: "Alpha" is no name; allowed: 1 to 64 of`},
		{"a name with two dots", with(t, `"alpha"`, `"a..b"`), `name: "a..b" is no name`},
		{"an empty name", with(t, `"alpha"`, `""`), `name: is empty`},
		{"a name that is a number", with(t, `"alpha"`, `7`), `node.toml:1: name: is a number`},
		{"no name", with(t, "name = \"alpha\"\n", ""), `node.toml:1: name: is missing`},
		{"no identity", with(t, "[identity]\nca = \"/etc/gantry/ca.pem\"", "[identity]"), `node.toml:4: identity.ca: is missing; allowed: an absolute path without ".."; example: ca = "/etc/gantry/ca.pem"`},
		{"a table that is a text", with(t, "[identity]", "front = \"nginx\"\n[identity]"), `node.toml:`},
		{"a list that is a table", strings.Replace(base, "[[grant]]", "[grant]", 1), `node.toml:16: grant: is a table; allowed: tables; example: [[grant]]`},
		{"a list of other things", strings.Replace(base, "[[resource]]", "resource = [1, 2]\n[[resources]]", 1), `resource`},

		{"socket fd:0", with(t, "/run/gantry/node.sock", "fd:0"), `socket: "fd:0" is no path; say socket_from = "fd:0"`},
		{"socket systemd", with(t, "/run/gantry/node.sock", "systemd"), `socket: "systemd" is no path; say socket_from = "systemd"`},
		{"front unknown", with(t, `"nginx"`, `"apache"`), `node.toml:10: front.kind: "apache" is unknown; allowed: lighttpd, nginx, embedded; example: kind = "lighttpd"`},
		{"uid 65534", with(t, "[58261]", "[58261,\n 65534]"), `node.toml:12: front.uids[1]: 65534 is nobody in particular`},
		{"uid by name", with(t, "[58261]", `["www-data"]`), `front.uids[0]: is a text; allowed: numbers of users`},
		{"uid negative", with(t, "[58261]", "[-1]"), `front.uids[0]: -1 is no uid`},
		{"uid 4294967295", with(t, "[58261]", "[4294967295]"), `is no uid`},
		{"uid twice", with(t, "[58261]", "[1, 1]"), `front.uids[1]: 1 stands there twice`},
		{"no uid", with(t, "[58261]", "[]"), `node.toml:11: front.uids: names nobody who may speak to the socket`},
		{"uids missing", with(t, "uids = [58261]\n", ""), `front.uids: names nobody`},
		{"listen without port", with(t, `kind = "nginx"`, "kind = \"nginx\"\napi_listen = [\"192.0.2.7\"]"), `front.api_listen[0]: "192.0.2.7" is not HOST:PORT`},
		{"listen IPv6 without brackets", with(t, `kind = "nginx"`, "kind = \"nginx\"\napi_listen = [\"2001:db8::7:8443\"]"), `is not HOST:PORT (an IPv6 address in brackets)`},
		{"listen with port 0", with(t, `kind = "nginx"`, "kind = \"nginx\"\napi_listen = [\":0\"]"), `has no port from 1 to 65535`},
		{"listen that would end a configuration line", with(t, `kind = "nginx"`, "kind = \"nginx\"\ndata_listen = [\"a;b:1\"]"), `front.data_listen[0]: "a;b:1" has no host or address`},
		{"listen twice", with(t, `kind = "nginx"`, "kind = \"nginx\"\napi_listen = [\":1\", \":1\"]"), `front.api_listen[1]: ":1" stands there twice`},
		{"listen that is no list", with(t, `kind = "nginx"`, "kind = \"nginx\"\napi_listen = \":1\""), `front.api_listen: is a text; allowed: a list: HOST:PORT`},
		{"listen of numbers", with(t, `kind = "nginx"`, "kind = \"nginx\"\napi_listen = [1]"), `front.api_listen[0]: is a number`},
		{"padding too long", with(t, `kind = "nginx"`, "kind = \"nginx\"\npadding = 16385"), `front.padding: is 16385; allowed: 0 to 16384`},
		{"incremental as text", with(t, `kind = "nginx"`, "kind = \"nginx\"\nincremental = \"yes\""), `front.incremental: is a text; allowed: true or false`},

		{"kind of resource unknown", with(t, `kind = "files"`, `kind = "file"`), `resource[0].kind: "file" is unknown`},
		{"mode without zero", with(t, `kind = "files"`, "kind = \"files\"\nmode = \"640\""), `resource[0].mode: "640" is no such mode; allowed: octal permission bits in quotes`},
		{"mode as number", with(t, `kind = "files"`, "kind = \"files\"\nmode = 640"), `resource[0].mode: is a number`},
		{"mode setuid", with(t, `kind = "files"`, "kind = \"files\"\nmode = \"04755\""), `"04755" is no such mode`},
		{"send unknown", with(t, `kind = "files"`, "kind = \"files\"\nsend = \"fast\""), `resource[0].send: "fast" is unknown; allowed: stream, front`},
		{"resource name twice", base + "[[resource]]\nname = \"disks\"\nkind = \"files\"\npath = \"/srv/x\"\n", `node.toml:21: resource[1].name: "disks" is the name of another resource`},

		{"grant to nobody", with(t, "who = \"spiffe://demo/operator/*\"\n", ""), `grant[0].who: is missing`},
		{"grant with an inner *", with(t, "demo/operator/*", "demo/*/ann"), `grant[0].who: "spiffe://demo/*/ann": * may only be the whole last element`},
		{"grant with a partial *", with(t, "demo/operator/*", "demo/operator/a*"), `* may only be the whole last element`},
		{"grant to a cluster of *", with(t, "demo/operator/*", "*/operator/ann"), `* may only be the whole last element`},
		{"grant to a front", with(t, "demo/operator/*", "demo/front/alpha"), `a front is never a caller`},
		{"grant to no SPIFFE id", with(t, "spiffe://demo/operator/*", "CN=ann"), `node.toml:17: grant[0].who: "CN=ann" is not of that form; allowed: spiffe://CLUSTER/ROLE/NAME`},
		{"grant to an unknown role", with(t, "demo/operator/*", "demo/admin/ann"), `is not of that form`},
		{"right unknown", with(t, `"export"]`, `"exports"]`), `node.toml:18: grant[0].may[1]: "exports" is no right, did you mean export?; allowed: status, list, digest, export, import:create, import:replace, import:update, command, selftest; example: may = ["export", "digest"]`},
		{"right import alone", with(t, `"export"]`, `"import"]`), `"import" is no right`},
		{"H122 a tree sent by the front", with(t, `kind = "files"`, "kind = \"tree\"\nsend = \"front\""), `resource[0].send: is "front", but a tree's files pass through the responder`},
		{"H122 a policy that is none", with(t, `kind = "files"`, "kind = \"tree\"\nspecial = \"copy\""), `resource[0].special: "copy" is unknown; allowed: skip, refuse, keep`},
		{"H122 a tree's key of files", with(t, `kind = "files"`, "kind = \"files\"\ncross = true"), `resource[0].cross: is unknown`},
		{"right of *", with(t, `"export"]`, `"*"]`), `"*" is no right`},
		{"no rights", with(t, `may = ["status", "export"]`, `may = []`), `grant[0].may: names no right`},
		{"may missing", with(t, "may = [\"status\", \"export\"]\n", ""), `grant[0].may: names no right`},
		{"resource unknown", with(t, `resources = ["disks"]`, `resources = ["tapes"]`), `node.toml:19: grant[0].resources: "tapes" is no [[resource]]; allowed: disks, *`},
		{"* beside names", with(t, `resources = ["disks"]`, `resources = ["*", "disks"]`), `grant[0].resources: "*" stands beside names`},
		{"resources missing", with(t, "resources = [\"disks\"]\n", ""), `node.toml:16: grant[0].resources: is missing, and the right "export" is about a resource`},
		{"user reserved", with(t, `resources = ["disks"]`, "resources = [\"disks\"]\nuser = \"ann\""), `node.toml:20: grant[0].user: is reserved: tasks run as the responder's user until workers exist`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := config.ParseNode("node.toml", []byte(c.text))
			require.Error(t, err)
			require.Nil(t, n)
			require.Contains(t, err.Error(), c.want)
			var one *config.Error
			require.ErrorAs(t, err, &one)
			require.NotContains(t, one.Error(), "\n", "a problem is one line")
			if strings.HasPrefix(c.name, "H") {
				// Nothing else is complained about.
				require.Len(t, strings.Split(err.Error(), "\n"), 1, "%v", err)
			}
		})
	}
}

func TestNodeAccepts(t *testing.T) {
	for name, text := range map[string]string{
		"H132 lines that end in CR LF": strings.ReplaceAll(base, "\n", "\r\n"),
		"a tab in a comment":           base + "#\ta comment\n",
		"socket path of 107 bytes":     with(t, "/run/gantry/node.sock", "/"+strings.Repeat("x", 106)),
		"a space before the unit":      base + "[limits]\nrun_for = \"7 d\"\n",
		"a quoted key":                 strings.Replace(base, "who =", "\"who\" =", 1),
		"resources of all":             with(t, `resources = ["disks"]`, `resources = ["*"]`),
		"only rights without resource": with(t, "may = [\"status\", \"export\"]\nresources = [\"disks\"]\n", "may = [\"status\", \"selftest\"]\n"),
		"neighbours by name":           base + "[[resource]]\nname = \"d2\"\nkind = \"files\"\npath = \"/srv/disks2\"\n",
		"no grant, no resource":        base[:strings.Index(base, "[[resource]]")],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.ParseNode("node.toml", []byte(text))
			require.NoError(t, err)
		})
	}
}

// All problems are told at once, in one run.
func TestAllProblemsAtOnce(t *testing.T) {
	text := strings.NewReplacer(`"alpha"`, `"Alpha"`, "[58261]", "[65534]", "/srv/disks", "disks").Replace(base)
	_, err := config.ParseNode("node.toml", []byte(text))
	require.Len(t, strings.Split(err.Error(), "\n"), 3, "%v", err)
	var all config.Errors
	require.ErrorAs(t, err, &all)
	require.Equal(t, []int{1, 11, 15}, []int{all[0].Line, all[1].Line, all[2].Line})
}

// Links that make two names one directory are seen through.
func TestOverlapThroughALink(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "real"), 0o755))
	require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
	text := with(t, "/srv/disks", filepath.Join(dir, "real")) +
		fmt.Sprintf("[[resource]]\nname = \"x\"\nkind = \"files\"\npath = %q\n", filepath.Join(dir, "link", "new"))
	_, err := config.ParseNode("node.toml", []byte(text))
	require.ErrorContains(t, err, "resource[1].path: "+filepath.Join(dir, "link", "new")+" overlaps")
}

func TestExplain(t *testing.T) {
	n, err := config.ParseNode("node.toml", []byte(base))
	require.NoError(t, err)
	err = n.Explain("identity.key", os.ErrPermission)
	require.ErrorIs(t, err, os.ErrPermission)
	require.EqualError(t, err, "node.toml:7: identity.key: permission denied")
	require.EqualError(t, n.Explain("grant[0].who", errors.New("x")), "node.toml:17: grant[0].who: x")
	require.EqualError(t, n.Explain("limits.tasks", errors.New("x")), "node.toml:1: limits.tasks: x")
	require.NoError(t, n.Explain("name", nil))
	require.EqualError(t, (&config.Node{}).Explain("name", errors.New("x")), "x")
}

func TestLoadNeedsAFile(t *testing.T) {
	dir := t.TempDir()
	for _, load := range []func(string) error{
		func(p string) error { _, err := config.LoadNode(p); return err },
		func(p string) error { _, err := config.LoadCluster(p); return err },
	} {
		require.ErrorIs(t, load(filepath.Join(dir, "none")), os.ErrNotExist)
		require.ErrorContains(t, load(dir), "is not a regular file")
	}
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	_, err := config.LoadNode(fifo)
	require.ErrorContains(t, err, "is not a regular file")
}

func TestClusterRefuses(t *testing.T) {
	node := func(lines string) string { return "name = \"demo\"\n[[node]]\nname = \"alpha\"\n" + lines }
	pin := `"sha256:` + strings.Repeat("0", 64) + `"`
	for _, c := range []struct{ name, text, want string }{
		{"no nodes", "name = \"demo\"\n", `c.toml:1: node: there are no nodes; allowed: at least one [[node]]`},
		{"no url", node(""), `c.toml:2: node[0].url: is missing; allowed: https://HOST or https://HOST:PORT; example: url = "https://alpha.example.org:8443"`},
		{"http", node(`url = "http://a"`), `c.toml:4: node[0].url: "http://a" does not begin with https://`},
		{"no scheme", node(`url = "alpha:8443"`), `does not begin with https://`},
		{"no host", node(`url = "https://:8443"`), `has no host`},
		{"a path", node(`url = "https://a/x"`), `has more than host and port`},
		{"a query", node(`url = "https://a?x"`), `has more than host and port`},
		{"an empty query", node(`url = "https://a?"`), `has more than host and port`},
		{"a fragment", node(`url = "https://a#x"`), `has more than host and port`},
		{"a password", node(`url = "https://u:p@a"`), `has more than host and port`},
		{"port 0", node(`url = "https://a:0"`), `has no port from 1 to 65535`},
		{"port 65536", node(`url = "https://a:65536"`), `has no port from 1 to 65535`},
		{"an empty port", node(`url = "https://a:"`), `has no port from 1 to 65535`},
		{"no URL", node(`url = "https://a b"`), `is not a URL`},
		{"data_url", node("url = \"https://a\"\ndata_url = \"http://a\""), `c.toml:5: node[0].data_url: "http://a" does not begin`},
		{"data_url empty", node("url = \"https://a\"\ndata_url = \"\""), `node[0].data_url: is empty`},
		{"a pin", node("url = \"https://a\"\npins = [\"sha1:00\"]"), `c.toml:5: node[0].pins[0]: "sha1:00" is no pin`},
		{"a pin twice", node("url = \"https://a\"\npins = [" + pin + "," + pin + "]"), `stands there twice`},
		{"too many pins", node("url = \"https://a\"\npins = [" + manyPins() + "]"), `node[0].pins: there are 9; allowed: at most 8`},
		{"a role of a pin", node("url = \"https://a\"\npins.old = " + pin), `c.toml:5: node[0].pins.old: is unknown; allowed: current, next, emergency`},
		{"a role's pin", node("url = \"https://a\"\npins.current = \"sha1:00\""), `c.toml:5: node[0].pins.current: "sha1:00" is no pin`},
		{"a pin in two roles", node("url = \"https://a\"\npins.current = " + pin + "\npins.next = " + pin), `c.toml:6: node[0].pins.next: "sha256:`},
		{"the next pin alone", node("url = \"https://a\"\npins.next = " + pin), `node[0].pins.current: is missing`},
		{"pins of a number", node("url = \"https://a\"\npins = 1"), `node[0].pins: is a number`},
		{"trust in pins without any", node("url = \"https://a\"\ntrust = \"pins\""), `c.toml:5: node[0].trust: pins alone are trusted, and there are none`},
		{"trust in nothing", node("url = \"https://a\"\ntrust = \"none\""), `node[0].trust: "none" is unknown; allowed: ca, pins`},
		{"a group without nodes", node("url = \"https://a\"\n[[group]]\nname = \"g\""), `c.toml:5: group[0].nodes: is missing`},
		{"a group of a node that there is not", node("url = \"https://a\"\n[[group]]\nname = \"g\"\nnodes = \"beta\""), `c.toml:7: group[0].nodes: node set "beta": there is no node "beta"; the cluster has alpha`},
		{"a group of itself", node("url = \"https://a\"\n[[group]]\nname = \"g\"\nnodes = \"@g\""), `there is no such group`},
		{"a group twice", node("url = \"https://a\"\n[[group]]\nname = \"g\"\nnodes = \"*\"\n[[group]]\nname = \"g\"\nnodes = \"*\""), `group[1].name: "g" is the name of another group`},
		{"a group's key", node("url = \"https://a\"\n[[group]]\nname = \"g\"\nnodes = \"*\"\nnode = 1"), `group[0].node: is unknown`},
		{"a name twice", node("url = \"https://a\"\n[[node]]\nname = \"alpha\"\nurl = \"https://b\""), `c.toml:6: node[1].name: "alpha" is the name of another node`},
		{"unknown key", node("url = \"https://a\"\nuri = 1"), `c.toml:5: node[0].uri: is unknown, did you mean url?; allowed: name, url, data_url, pins, trust`},
		{"no cluster name", "[[node]]\nname = \"alpha\"\nurl = \"https://a\"\n", `c.toml:1: name: is missing`},
		{"a date", "name = 2026-11-20\n", `c.toml:1: name: is a date or time`},
		{"a fraction", "name = 1.5\n", `name: is a number with a fraction`},
		{"true", "name = true\n", `name: is true or false`},
		{"a list", "name = []\n", `name: is a list`},
		{"no TOML", "name", `c.toml:1: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.ParseCluster("c.toml", []byte(c.text))
			require.ErrorContains(t, err, c.want)
		})
	}
	c, err := config.ParseCluster("c.toml", []byte(node(`url = "https://a:8443/"`)))
	require.NoError(t, err)
	require.Equal(t, "https://a:8443", c.Nodes[0].URL)
}

func manyPins() string {
	var pins []string
	for i := range 9 {
		pins = append(pins, fmt.Sprintf(`"sha256:%064x"`, i))
	}
	return strings.Join(pins, ",")
}

// Positions are right for every way in which TOML lets a key be written.
func TestPositions(t *testing.T) {
	text := `front.kind = "nginx"
front.uids = [
  1,
  65534,
]
resource = [
  { name = "a", kind = "files", path = "/srv/a" },
  { name = "b", kind = "files",
    path = "b" },
]
[identity]
ca = "ca"
`
	_, err := config.ParseNode("n", []byte(text))
	for _, want := range []string{
		`n:4: front.uids[1]: 65534`, `n:9: resource[1].path: "b" is relative`, `n:12: identity.ca: "ca" is relative`,
		`n:11: identity.key: is missing`, `n:1: name: is missing`,
	} {
		require.Contains(t, err.Error(), want)
	}
}

// What a node may be called and what a set of nodes may name is the same.
func TestNamesOfNodesAreThoseOfSets(t *testing.T) {
	for _, name := range []string{"a", "a1", "mx-a.b_c", "-a", "a-", "a..b", ".a", "A", "a b", "é", strings.Repeat("a", 64), strings.Repeat("a", 65)} {
		_, err := config.ParseCluster("c", []byte(fmt.Sprintf("name = \"demo\"\n[[node]]\nname = %q\nurl = \"https://a\"\n", name)))
		_, inSet := nodeset.Parse(name, nodeset.Known{})
		require.Equal(t, err == nil, inSet == nil, "%s: %v, %v", name, err, inSet)
	}
}

func TestDefaultsAreWithinTheirBounds(t *testing.T) {
	d := config.Defaults()
	require.LessOrEqual(t, d.Heartbeat, config.MaxHeartbeat)
	require.Equal(t, 30*24*time.Hour, d.KeepFinal)
	require.Equal(t, int64(16<<20), d.JournalPerTask)
	require.Equal(t, int64(1<<30), d.JournalPerNode)
}
