//go:build stack

package stacktest_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const responderUID, frontUID, masterUID, masterFrontUID = "58260", "58261", "58263", "58264"

func isFront(service string) bool { return strings.HasSuffix(service, "-front") }

// inside looks at one container from within: what its processes are, what they
// can write, where they listen.
func (s *stack) inside(t *testing.T, service string) {
	id := s.container(t, service)
	uid, dirs, ports := responderUID, []string{"/run/gantry", "/srv/disks", "/var/lib/gantry"}, []string(nil)
	keys := []string{"/etc/gantry/key.pem"}
	switch {
	case isFront(service):
		uid, dirs, ports = frontUID, []string{"/var/lib/gantry-front"}, []string{"8443"}
		keys = []string{"/etc/gantry-front/key.pem", "/etc/gantry-front/health/key.pem"}
		if service == "master-front" {
			uid = masterFrontUID
		}
	case service == "master":
		uid, dirs, keys = masterUID, []string{"/run/gantry-master", "/var/lib/gantry-master"}, []string{"/etc/gantry-master/key.pem"}
	case service == "gamma":
		dirs = append(dirs, "/srv/archive")
	}
	sh := func(script string) string { return s.docker(t, "exec", id, "sh", "-c", script) }
	t.Run("uid, no capabilities, no new privileges, seccomp", func(t *testing.T) {
		requireProcesses(t, sh("cat /proc/[0-9]*/status"), uid)
	})
	t.Run("no writable root", func(t *testing.T) {
		// Tried at every mount and every folder of the root. The last two are the
		// kernel's, in memory and limited.
		tried := sh(`{ awk '{print $2}' /proc/mounts; ls -d / /*/ /etc/*/ /usr/*/ /var/*/ /var/lib/*/; } | sed 's,\(.\)/$,\1,' | sort -u |
			while read -r d; do [ -d "$d" ] && touch "$d/tried" 2>/dev/null && rm "$d/tried" && echo "$d"; done; true`)
		want := append(slices.Clone(dirs), "/dev/mqueue", "/dev/shm")
		require.ElementsMatch(t, want, strings.Fields(tried))
		root := sh(`awk '$2 == "/" {print $4}' /proc/mounts`)
		require.True(t, strings.HasPrefix(root, "ro,"), root)
	})
	t.Run("listens where it should only", func(t *testing.T) { require.Equal(t, ports, listening(sh("cat /proc/net/tcp /proc/net/tcp6"))) })
	t.Run("reads no key but its own", func(t *testing.T) {
		require.ElementsMatch(t, keys, strings.Fields(sh("find / -path /proc -prune -o -name '*.key' -print -o -name key.pem -print 2>/dev/null; true")))
	})
	t.Run("memory and processes are limited", func(t *testing.T) {
		limits := strings.Fields(s.docker(t, "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", id))
		require.NotContains(t, limits, "0")
		require.NotContains(t, limits, "<nil>")
	})
	if !isFront(service) {
		t.Run("no way out", func(t *testing.T) { s.noWayOut(t, id) })
	}
}

// noWayOut tries a port that answers in both networks.
func (s *stack) noWayOut(t *testing.T, id string) {
	front := s.container(t, "alpha-front")
	for network, reached := range map[string]bool{"data": true, "edge": false} {
		address := s.docker(t, "inspect", "-f", fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", s.project+"_"+network), front)
		_, err := s.try("docker", "exec", id, "timeout", "3", "bash", "-c", "</dev/tcp/"+address+"/8443")
		require.Equal(t, reached, err == nil, "network %s: %v", network, err)
	}
}

// requireProcesses judges the status files of all processes of a container.
func requireProcesses(t *testing.T, status, uid string) {
	t.Helper()
	processes, entering := 0, false
	for line := range strings.SplitSeq(status, "\n") {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch {
		case name == "Name":
			// The engine on its way into the container, before it becomes somebody:
			// a health check that just starts.
			entering = strings.HasPrefix(fields[0], "runc:")
			processes++
		case entering:
			continue
		}
		switch name {
		case "Uid", "Gid":
			require.Equal(t, []string{uid, uid, uid, uid}, fields, line)
		case "Groups":
			require.Subset(t, []string{uid}, fields, line)
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
			require.Equal(t, []string{"0000000000000000"}, fields, line)
		case "NoNewPrivs":
			require.Equal(t, []string{"1"}, fields, line)
		case "Seccomp":
			require.Equal(t, []string{"2"}, fields, line)
		}
	}
	require.Greater(t, processes, 1)
}

// listening is the ports of sockets in state LISTEN, without the engine's own
// name server in each network namespace (127.0.0.11).
func listening(table string) []string {
	var out []string
	for line := range strings.SplitSeq(table, "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "0A" || strings.HasPrefix(f[1], "0B00007F:") {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		var port int
		_, _ = fmt.Sscanf(hex, "%x", &port) // 0 if the kernel wrote anything else, which no test expects
		out = append(out, fmt.Sprint(port))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// doors tries, with the volumes mounted where they should not be, what the
// owners and modes in them allow.
func (s *stack) doors(t *testing.T) {
	as := func(uid, volume, command string) error {
		_, err := s.try("docker", "run", "--rm", "--network", "none", "--cap-drop", "ALL", "--user", uid, "-v", s.project+"_"+volume+":/v",
			"--entrypoint", "sh", "gantry:"+s.tag("new"), "-c", command)
		return err
	}
	t.Run("the responder cannot read the front's key", func(t *testing.T) {
		require.NoError(t, as("58261:58261", "alpha-front", "cat /v/key.pem"), "the front itself")
		require.Error(t, as("58260:58260", "alpha-front", "cat /v/key.pem"))
	})
	t.Run("the front cannot read the responder's key", func(t *testing.T) {
		require.NoError(t, as("58260:58260", "alpha-etc", "cat /v/key.pem"), "the responder itself")
		require.Error(t, as("58261:58261", "alpha-etc", "cat /v/key.pem"))
	})
	t.Run("the front cannot write a resource", func(t *testing.T) {
		require.NoError(t, as("58260:58260", "gamma-archive", ": >/v/tried && rm /v/tried"), "the responder itself")
		require.NoError(t, as("58261:58261", "gamma-archive", "cat /v/big >/dev/null"), "it sends from there")
		require.Error(t, as("58261:58261", "gamma-archive", ": >/v/tried"))
		require.Error(t, as("58261:58261", "gamma-archive", ": >>/v/big"))
		_, err := s.try("docker", "exec", s.container(t, "gamma-front"), "sh", "-c", ": >/srv/archive/tried")
		require.Error(t, err)
	})
	t.Run("the master and its front cannot read each other's keys", func(t *testing.T) {
		require.NoError(t, as("58264:58264", "master-front", "cat /v/key.pem"), "the front itself")
		require.Error(t, as("58263:58263", "master-front", "cat /v/key.pem"))
		require.NoError(t, as("58263:58263", "master-etc", "cat /v/key.pem"), "the master itself")
		require.Error(t, as("58264:58264", "master-etc", "cat /v/key.pem"))
	})
	t.Run("nobody but the master reads or writes its store", func(t *testing.T) {
		require.NoError(t, as("58263:58263", "master-state", "head -c 1 /v/master.db && test -w /v/master.db"), "the master itself")
		for _, uid := range []string{"58264:58264", "58260:58260", "58261:58261"} {
			require.Error(t, as(uid, "master-state", "head -c 1 /v/master.db"))
			require.Error(t, as(uid, "master-state", ": >>/v/master.db"))
			require.Error(t, as(uid, "master-state", ": >/v/tried"))
		}
	})
	t.Run("nobody else reads the CA's or the operator's key", func(t *testing.T) {
		for _, uid := range []string{"58260:58260", "58261:58261", "58262:58262", "58263:58263", "58264:58264"} {
			require.Error(t, as(uid, "ca", "cat /v/ca/ca.key"))
			require.Error(t, as(uid, "operator", "cat /v/key.pem"))
		}
	})
	for _, who := range []responder{
		{image: "gantry-fcgi-app", socket: "alpha-socket:/run/gantry", config: "alpha.toml", front: "58261", others: []string{"58299", "58264"}},
		// The nodes' front is another one to it.
		{image: "gantry-masterd", socket: "master-socket:/run/gantry-master", config: "hub.toml", front: "58264", others: []string{"58299", "58261"}},
	} {
		t.Run("another uid in the socket's group is refused by "+who.image, func(t *testing.T) {
			out, err := s.probe(t, who, who.front+":"+who.front)
			require.NoError(t, err, "the front itself: %s", out)
			for _, other := range who.others {
				out, err = s.probe(t, who, other+":"+who.front)
				require.Error(t, err)
				require.Contains(t, out, "is this user one of [front] uids")
				out, err = s.probe(t, who, other+":"+other)
				require.Error(t, err)
				require.Contains(t, out, "permission denied", "another group does not come as far")
			}
		})
	}
}

// responder is what probe asks.
type responder struct {
	image, socket, config string
	front                 string   // its uid
	others                []string // other uids
}

// probe asks a responder over its socket, as somebody.
func (s *stack) probe(t *testing.T, who responder, user string) (string, error) {
	id := s.docker(t, "create", "--network", "none", "--cap-drop", "ALL", "--user", user, "-v", s.project+"_"+who.socket,
		who.image+":"+s.tag("new"), "probe", "/config.toml")
	defer s.docker(t, "rm", "-f", id)
	config := filepath.Join(t.TempDir(), "config.toml")
	s.run(t, "install", "-m", "0644", "fcgi-app/stack/"+who.config, config)
	s.docker(t, "cp", config, id+":/config.toml")
	return s.try("docker", "start", "-a", id)
}

// renewed: new keys, certificates and revocation list for all.
func (s *stack) renewed(t *testing.T) {
	serial := func() string {
		return s.run(t, "openssl", "x509", "-noout", "-serial", "-in", filepath.Join(s.home, "cert.pem"))
	}
	before := serial()
	s.script(t, "", "renew")
	s.script(t, "", "operator", s.home)
	require.NotEqual(t, before, serial())
	require.NotContains(t, s.cli(t, "nodes"), "unreachable")
	require.Contains(t, s.cli(t, "jobs"), "hub")
}
