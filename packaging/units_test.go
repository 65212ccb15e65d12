// Package packaging_test judges what the Debian packages bring beside their
// programs: units, users, folders. scripts/package builds and tries the packages
// themselves.
package packaging_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gantry/config"
	"gantry/internal/cluster"
	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// most is the exposure that a unit may have at most, in tenths, as
// systemd-analyze counts it.
const most = 15

// The uids of a master and its front, which no node of the same machine has.
const (
	masterUID      = 58263
	masterFrontUID = 58264
)

// A bundle is what one package brings.
type bundle struct {
	name, responder, front string   // the package, and who runs what
	services               []string // the responder's first
	examples               []string // drop-ins and the service that each is for
}

var bundles = []bundle{
	{
		"gantry-node", "gantry", "gantry-front",
		[]string{"gantry-node.service", "gantry-front-nginx.service", "gantry-front-lighttpd.service"},
		[]string{"resources.conf", "gantry-node.service", "low-port.conf", "gantry-front-nginx.service"},
	},
	{
		"gantry-master", "gantry-master", "gantry-master-front",
		[]string{"gantry-master.service", "gantry-master-front-nginx.service", "gantry-master-front-lighttpd.service"},
		[]string{"low-port.conf", "gantry-master-front-nginx.service"},
	},
}

func analyze(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: units are not judged")
	}
	return path
}

func TestUnitsAreHardened(t *testing.T) {
	tool := analyze(t)
	for _, b := range bundles {
		for _, name := range b.services {
			out, err := exec.Command(tool, "security", "--offline=yes", "--no-pager", fmt.Sprintf("--threshold=%d", most),
				filepath.Join(b.name, name)).CombinedOutput()
			require.NoError(t, err, "%s is more exposed than %.1f:\n%s", name, float64(most)/10, out)
			require.Contains(t, string(out), "Overall exposure level for "+name)
		}
	}
}

// systemd ignores what it does not know, with a line in a log that nobody
// reads. The examples are taken with every line in effect.
func TestUnitsAreUnderstood(t *testing.T) {
	tool := analyze(t)
	root := testkit.Dir(t)
	put := func(path, text string, mode os.FileMode) {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	for _, program := range []string{"/usr/bin/fcgi-app", "/usr/bin/masterd", "/usr/sbin/nginx", "/usr/sbin/lighttpd", "/bin/sh"} {
		put(program, "#!/bin/sh\n", 0o755)
	}
	for _, target := range []string{"sysinit", "basic", "shutdown", "multi-user", "network-online", "local-fs", "remote-fs", "sockets"} {
		put("/usr/lib/systemd/system/"+target+".target", "[Unit]\nDescription="+target+"\n", 0o644)
	}
	put("/usr/lib/systemd/system/system.slice", "[Unit]\nDescription=slice\n", 0o644)
	put("/etc/passwd", "root:x:0:0::/:/bin/sh\n", 0o644)
	var units []string
	for _, b := range bundles {
		for _, name := range append([]string{b.name + ".socket"}, b.services...) {
			put("/usr/lib/systemd/system/"+name, b.text(t, name), 0o644)
			units = append(units, name)
		}
		for i := 0; i < len(b.examples); i += 2 {
			put("/etc/systemd/system/"+b.examples[i+1]+".d/"+b.examples[i], uncommented(b.text(t, b.examples[i])), 0o644)
		}
	}

	cmd := exec.Command(tool, append([]string{"verify", "--man=no", "--root=" + root}, units...)...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for line := range strings.Lines(string(out)) {
		require.NotContains(t, line, "gantry", "systemd complains")
	}
}

func (b bundle) text(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.name, name))
	require.NoError(t, err)
	return string(data)
}

// uncommented puts every "#Key=value" into effect.
func uncommented(s string) string {
	return regexp.MustCompile(`(?m)^#([A-Z][A-Za-z]+=)`).ReplaceAllString(s, "$1")
}

// The numbers are in the examples of node.toml and master.toml, in containers and
// in packages: files that one of them wrote belong to the same users in the others.
func TestUsersHaveTheirNumbers(t *testing.T) {
	for i, numbers := range [][2]int{{cluster.UID, cluster.FrontUID}, {masterUID, masterFrontUID}} {
		b := bundles[i]
		users := b.text(t, "sysusers.conf")
		require.Contains(t, users, fmt.Sprintf("u %s %d ", b.responder, numbers[0]))
		require.Contains(t, users, fmt.Sprintf("u %s %d ", b.front, numbers[1]))
		for i, name := range b.services {
			user := b.front
			if i == 0 {
				user = b.responder
			}
			require.Contains(t, b.text(t, name), "\nUser="+user+"\nGroup="+user+"\n")
		}
	}
	require.Contains(t, bundles[0].text(t, "tmpfiles.conf"), "\nd /run/gantry 2750 gantry gantry-front -\n")
	require.Contains(t, bundles[1].text(t, "tmpfiles.conf"), "\nd /run/gantry-master 2750 gantry-master gantry-master-front -\n")
	node, err := config.ParseNode("node.toml", []byte(config.ExampleNode()))
	require.NoError(t, err)
	require.Equal(t, []uint32{cluster.FrontUID}, node.Front.UIDs)
	master, err := config.ParseMaster("master.toml", []byte(config.ExampleMaster()))
	require.NoError(t, err)
	require.Equal(t, []uint32{masterFrontUID}, master.Front.UIDs)
}
