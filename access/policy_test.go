package access_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/access"
	"gantry/api"
	"gantry/config"
	"gantry/pki"
)

func caller(role, name string) access.Caller {
	return access.Caller{ID: pki.ID{Cluster: "demo", Role: role, Name: name}}
}

func grants() []config.Grant {
	return []config.Grant{
		{Who: "spiffe://demo/master/*", May: []string{"export", "import:create", "list"}, Resources: []string{"disks", "mail"}},
		{Who: "spiffe://demo/operator/ann", May: []string{"status", "digest"}, Resources: []string{"*"}},
		{Who: "spiffe://demo/operator/ann", May: []string{"export"}, Resources: []string{"mail"}},
		{Who: "spiffe://demo/node/*", May: []string{"status"}},
	}
}

func TestPolicy(t *testing.T) {
	p := access.NewPolicy(grants(), nil)
	type row struct {
		who      access.Caller
		right    api.Right
		resource string
		want     bool
	}
	allow := func(role, name string, right api.Right, resource string) row {
		return row{caller(role, name), right, resource, true}
	}
	deny := func(role, name string, right api.Right, resource string) row {
		return row{caller(role, name), right, resource, false}
	}
	otherCluster := row{access.Caller{ID: pki.ID{Cluster: "demo2", Role: "master", Name: "m1"}}, api.MayExport, "disks", false}
	nobody := row{access.Caller{}, api.MayExport, "disks", false}
	nobodyAtAll := row{access.Caller{}, api.NoRight, "", false}
	for _, c := range []row{
		allow("master", "m1", api.MayExport, "disks"),
		allow("master", "m2", api.MayCreate, "mail"),
		allow("master", "m1", api.MayList, access.Any),
		deny("master", "m1", api.MayReplace, "disks"),
		deny("master", "m1", api.MayExport, "tapes"),
		deny("master", "m1", api.MayExport, "disk"),
		deny("master", "m1", api.MayExport, "disks2"),
		deny("master", "m1", api.MayStatus, ""),
		deny("operator", "m1", api.MayExport, "disks"),

		allow("operator", "ann", api.MayDigest, "disks"),
		allow("operator", "ann", api.MayDigest, "whatever"),
		allow("operator", "ann", api.MayStatus, ""),
		allow("operator", "ann", api.MayExport, "mail"),
		deny("operator", "ann", api.MayExport, "disks"),
		deny("operator", "ann", api.MayExport, "*"),
		deny("operator", "ann2", api.MayDigest, "disks"),
		deny("operator", "an", api.MayDigest, "disks"),
		deny("operator", "bob", api.MayDigest, "disks"),
		allow("operator", "bob", api.NoRight, ""),

		allow("node", "beta", api.MayStatus, ""),
		allow("node", "beta", api.MayStatus, "disks"), // not about a resource
		deny("node", "beta", api.MayList, access.Any),
		deny("nodes", "beta", api.MayStatus, ""),
		otherCluster, nobody, nobodyAtAll,
	} {
		err := p.Allows(c.who, c.right, c.resource)
		if c.want {
			require.NoError(t, err, "%v", c)
			continue
		}
		requireWire(t, err, "forbidden", fmt.Sprintf("no grant gives %s the right %q", c.who, c.right))
	}
}

// A master's grants name nodes, and users of its own machine by uid.
func TestMasterPolicy(t *testing.T) {
	p := access.NewPolicy([]config.Grant{
		{Who: "spiffe://demo/operator/ann", May: []string{"export", "jobs"}, Nodes: []string{"alpha"}, Resources: []string{"disks"}},
		{Who: "spiffe://demo/operator/ann", May: []string{"import:create"}, Nodes: []string{"beta"}, Resources: []string{"*"}},
		{Who: "local:1000", May: []string{"status", "digest"}, Nodes: []string{"*"}, Resources: []string{"mail"}},
	}, nil)
	ann, local := caller("operator", "ann"), func(uid uint32, self bool) access.Caller {
		return access.Caller{Local: &access.Local{UID: uid, Self: self}}
	}
	for _, c := range []struct {
		who            access.Caller
		right          api.Right
		node, resource string
		want           bool
	}{
		{ann, api.MayExport, "alpha", "disks", true},
		{ann, api.MayExport, "beta", "disks", false}, // that grant is of another right
		{ann, api.MayExport, "alpha", "mail", false},
		{ann, api.MayExport, access.Any, "disks", true},
		{ann, api.MayCreate, "beta", "anything", true},
		{ann, api.MayCreate, "alpha", "disks", false},
		{ann, api.MayJobs, access.Any, access.Any, true},
		{ann, api.MayCancel, access.Any, access.Any, false},
		{local(1000, false), api.MayDigest, "gamma", "mail", true},
		{local(1000, false), api.MayDigest, "gamma", "disks", false},
		{local(1000, false), api.MayJobs, access.Any, access.Any, false},
		{local(100, false), api.MayStatus, access.Any, access.Any, false},
		{local(10000, false), api.MayStatus, access.Any, access.Any, false},
		{local(7, true), api.MayReplace, "alpha", "disks", true},
		{local(7, true), api.MayAudit, access.Any, access.Any, true},
		{local(7, false), api.NoRight, access.Any, access.Any, true}, // known, with no right at all
		{access.Caller{}, api.NoRight, access.Any, access.Any, false},
	} {
		require.Equal(t, c.want, p.AllowsAt(c.who, c.right, c.node, c.resource) == nil, "%v", c)
	}
	require.True(t, p.Knows(ann))
	require.True(t, p.Knows(local(1000, false)))
	require.True(t, p.Knows(local(7, true)))
	require.False(t, p.Knows(local(7, false)))
	require.False(t, p.Knows(access.Caller{}))
	require.Equal(t, []api.MasterGrant{{May: []api.Right{"status", "digest"}, Nodes: []string{"*"}, Resources: []string{"mail"}}}, p.MasterRights(local(1000, false)))
	require.Equal(t, api.MasterRights, p.MasterRights(local(7, true))[0].May)
	require.Empty(t, p.MasterRights(access.Caller{}))
	require.Equal(t, "local:7", local(7, true).String())
	require.Equal(t, "nobody", access.Caller{}.String())
}

func TestNoGrantsDenyEverything(t *testing.T) {
	p := access.NewPolicy(nil, nil)
	for _, right := range api.Rights {
		require.Error(t, p.Allows(caller("master", "m"), right, "disks"))
		require.Error(t, p.Allows(caller("master", "m"), right, access.Any))
	}
	require.Empty(t, p.Rights(caller("master", "m")))
}

// Nobody stays nobody, whatever a grant says.
func TestNobodyMatchesNoGrant(t *testing.T) {
	for _, who := range []string{"spiffe:////", "spiffe:////*", "*", "/*", ""} {
		p := access.NewPolicy([]config.Grant{{Who: who, May: []string{"status"}}}, nil)
		require.Error(t, p.Allows(access.Caller{}, api.MayStatus, ""), who)
		require.Empty(t, p.Rights(access.Caller{}), who)
	}
}

func TestRights(t *testing.T) {
	p := access.NewPolicy(grants(), nil)
	require.Equal(t, []api.Grant{
		{May: []api.Right{api.MayStatus, api.MayDigest}, Resources: []string{"*"}},
		{May: []api.Right{api.MayExport}, Resources: []string{"mail"}},
	}, p.Rights(caller("operator", "ann")))
	require.Equal(t, []api.Grant{{May: []api.Right{api.MayStatus}, Resources: []string{}}}, p.Rights(caller("node", "beta")))
	require.Equal(t, []api.Right{api.MayDigest, api.MayExport}, p.RightsOn(caller("operator", "ann"), "mail"))
	require.Equal(t, []api.Right{api.MayDigest}, p.RightsOn(caller("operator", "ann"), "disks"))
	require.Empty(t, p.RightsOn(caller("operator", "eve"), "disks"))
	require.Empty(t, p.RightsOn(caller("node", "beta"), "disks"))
}

func TestRefusalsAreLoggedOnceAndBounded(t *testing.T) {
	var out bytes.Buffer
	p := access.NewPolicy(grants(), slog.New(slog.NewTextHandler(&out, nil)))
	eve := caller("operator", "eve")
	for range 5 {
		require.Error(t, p.Allows(eve, api.MayExport, "disks"))
	}
	require.Equal(t, 1, strings.Count(out.String(), "\n"), out.String())
	require.Contains(t, out.String(), "caller=spiffe://demo/operator/eve right=export resource=disks")
	require.Error(t, p.Allows(eve, api.MayExport, "mail"))
	require.Equal(t, 2, strings.Count(out.String(), "\n"))

	// Ten thousand different ones neither fill the log nor the memory.
	for i := range 10_000 {
		err := p.Allows(eve, api.MayExport, fmt.Sprint(i, strings.Repeat("x", 10_000)))
		require.Less(t, len(err.Error()), 400)
	}
	require.Less(t, strings.Count(out.String(), "\n"), 100)
}

// What config accepts, api defines and pki issues is the same.
func TestPackagesAgree(t *testing.T) {
	var rights []string
	for _, r := range api.Rights {
		rights = append(rights, string(r))
	}
	require.Equal(t, rights, config.Rights)
	for _, route := range api.Routes {
		if route.Right != api.NoRight {
			require.Contains(t, api.Rights, route.Right, route.Path)
		}
	}
	rights = nil
	for _, r := range api.MasterRights {
		rights = append(rights, string(r))
	}
	require.ElementsMatch(t, rights, config.MasterRights)
	require.Equal(t, api.LocalPrefix, config.LocalWho)
	for _, route := range api.MasterRoutes {
		if route.Right != api.NoRight {
			require.Contains(t, api.MasterRights, route.Right, route.Path)
			require.False(t, config.NeedsResource(string(route.Right)), "a route of a master is about no resource")
		}
	}
	require.Equal(t, pki.MaxName, config.MaxName)
	require.Equal(t, pki.MaxName, api.MaxName)
	require.Equal(t, pki.MaxCRL, api.MaxCRL)
	for _, code := range []string{pki.CodeCertificate, pki.CodeRevoked, pki.CodeCRLStale, pki.CodeCRL, pki.CodeServer, pki.CodePin} {
		require.Equal(t, code, api.CodeOf(code).Name)
	}
	for _, name := range []string{"a", "7", "a-b", "a_b", "a.b", "", "A", "-a", "a-", "a..b", "a/b", "a*", "ä", "a\n", strings.Repeat("x", 64), strings.Repeat("x", 65)} {
		_, err := config.ParseCluster("c", fmt.Appendf(nil, "name = %q\n[[node]]\nname = \"n\"\nurl = \"https://n\"\n", name))
		require.Equal(t, pki.CheckName("name", name) == nil, err == nil, "%q", name)
	}
	for pin, good := range map[string]bool{ // only what pki.Pin can have printed
		"sha256:" + strings.Repeat("0a", 32): true, "sha256:" + strings.Repeat("A", 64): false, "sha256:" + strings.Repeat("g", 64): false,
		"sha256:" + strings.Repeat("0", 63): false, "sha256:": false, "": false, strings.Repeat("a", 64): false, "sha1:" + strings.Repeat("0", 64): false,
	} {
		_, err := config.ParseCluster("c", fmt.Appendf(nil, "name = \"c\"\n[[node]]\nname = \"n\"\nurl = \"https://n\"\npins = [%q]\n", pin))
		require.Equal(t, good, err == nil, "%q", pin)
	}
}
