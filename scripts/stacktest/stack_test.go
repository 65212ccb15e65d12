//go:build stack

// Package stacktest_test is the acceptance test of the stack in
// docker-compose.yml, run by "scripts/stack test": on a stack of its own, with
// ports, volumes and images of its own, all of which it removes again.
//
// The parts run in order, on one stack: it starts with the images of the
// commit before, is upgraded under load, and from then on every container is
// looked at, killed, paused, restarted and cut off while copies run through it.
package stacktest_test

import (
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/internal/testkit"
)

// size is of the file that is copied: random, so no block of it is zero.
const size = 512 << 20

// responderMB is how much larger than its base the responder's image may be.
const responderMB = 30

// services in the order in which rolling changes take them.
var services = []string{"alpha", "alpha-front", "beta", "beta-front", "gamma", "gamma-front", "master", "master-front"}

// images that scripts/stack builds.
var images = []string{"gantry", "gantry-fcgi-app", "gantry-masterd", "gantry-lighttpd", "gantry-nginx"}

func TestMain(m *testing.M) { testkit.Main(m) }

// stack is the one that the test makes.
type stack struct {
	repo, dir, home string
	gantry          string // the program outside of the stack
	project         string
	env             []string // of compose and of the program
}

func TestStack(t *testing.T) {
	s := newStack(t)
	began := time.Now()
	previous := s.buildAll(t)
	t.Run("starts", func(t *testing.T) { s.start(t, previous) })
	t.Logf("from nothing to a running stack in %v", time.Since(began).Round(time.Second))
	require.False(t, t.Failed(), "nothing runs")
	t.Run("file", s.makeFile)
	if previous != s.tag("new") {
		t.Run("rolling upgrade loses no job and no record", s.rollingUpgrade)
	}
	for _, node := range []string{"alpha", "beta", "gamma"} {
		t.Run("front check "+node, func(t *testing.T) { t.Log("\n" + s.cli(t, "front", "check", node)) })
	}
	t.Run("front check hub", func(t *testing.T) { t.Log("\n" + s.cli(t, "front", "check", "hub")) })
	t.Run("copy there and back", s.thereAndBack)
	t.Run("the master's API and metrics", s.masterAnswers)
	for _, service := range services {
		t.Run("inside "+service, func(t *testing.T) { s.inside(t, service) })
	}
	t.Run("keys, resources, socket", s.doors)
	t.Run("faults", s.allFaults)
	t.Run("rolling restart loses no job and no record", s.rollingRestart)
	t.Run("renewed certificates", s.renewed)
	t.Run("the master's store is good", s.storeGood)
	t.Run("nothing is left over", s.nothingLeft)
}

func newStack(t *testing.T) *stack {
	repo, err := filepath.Abs("../..")
	require.NoError(t, err)
	dir := t.TempDir()
	s := &stack{repo: repo, dir: dir, home: filepath.Join(dir, "operator"), gantry: filepath.Join(dir, "gantry"),
		project: fmt.Sprintf("gantry-test-%d", os.Getpid())}
	s.env = append(os.Environ(), "COMPOSE_PROJECT_NAME="+s.project, "XDG_STATE_HOME="+filepath.Join(dir, "state"),
		"GANTRY_MASTER="+freeAddress(t), "GANTRY_ALPHA="+freeAddress(t), "GANTRY_BETA="+freeAddress(t), "GANTRY_GAMMA="+freeAddress(t))
	t.Cleanup(func() { s.remove(t) })
	return s
}

// freeAddress lies below the ports that outgoing connections take.
func freeAddress(t *testing.T) string {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(20000+mathrand.IntN(12000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// buildAll makes the images of this checkout and of the commit before, and
// proves that the binaries depend on the commit alone. It returns the tag to
// start with.
func (s *stack) buildAll(t *testing.T) (previous string) {
	t.Log("\n" + s.script(t, "GANTRY_TAG="+s.tag("new"), "build"))
	s.run(t, "cp", ".bin/gantry", s.gantry) // a later build must not change it
	t.Run("responder's image is small", func(t *testing.T) {
		base := "debian:bookworm-slim"
		if v := os.Getenv("BASE_IMAGE"); v != "" {
			base = v
		}
		above := s.imageSize(t, "gantry-fcgi-app:"+s.tag("new")) - s.imageSize(t, base)
		require.LessOrEqual(t, above, int64(responderMB*1_000_000))
	})
	if exec.Command("git", "-C", s.repo, "rev-parse", "--verify", "--quiet", "HEAD^").Run() != nil {
		t.Log("SKIPPED: upgrade and equal builds: this checkout has no commit before its last")
		return s.tag("new")
	}
	one, two := filepath.Join(s.dir, "before"), filepath.Join(s.dir, "elsewhere", "before")
	s.checkout(t, one)
	s.checkout(t, two)
	t.Log("\n" + s.script(t, "GANTRY_TAG="+s.tag("old"), "build", one))
	t.Run("two builds in different directories give equal bytes", func(t *testing.T) {
		s.script(t, "", "binaries", two)
		for _, name := range []string{"fcgi-app", "masterd", "gantry"} {
			s.run(t, "cmp", filepath.Join(one, ".bin", name), filepath.Join(two, ".bin", name))
		}
	})
	return s.tag("old")
}

// checkout is the commit before, packed as it was; the first one that could be
// is packed as now.
func (s *stack) checkout(t *testing.T, dir string) {
	s.run(t, "git", "clone", "--quiet", "--shared", s.repo, dir)
	s.run(t, "git", "-C", dir, "checkout", "--quiet", "HEAD^")
	if _, err := os.Stat(filepath.Join(dir, "cmd/masterd/Dockerfile")); err == nil {
		return
	}
	t.Log("the commit before has no master in its stack: its binaries are packed by the files of this one")
	for _, file := range []string{".dockerignore", "fcgi-app/Dockerfile", "cmd/masterd/Dockerfile", "cmd/gantry/Dockerfile", "lighttpd/Dockerfile", "nginx/Dockerfile", "fcgi-app/stack"} {
		s.run(t, "cp", "-r", file, filepath.Join(dir, filepath.Dir(file)))
	}
}

func (s *stack) start(t *testing.T, tag string) {
	s.script(t, "GANTRY_TAG="+tag, "start")
	s.script(t, "", "operator", s.home)
	t.Log("\n" + s.cli(t, "nodes"))
}

// makeFile puts the file into alpha's resource.
func (s *stack) makeFile(t *testing.T) {
	cmd := exec.Command("docker", "exec", "-i", s.container(t, "alpha"), "sh", "-c", "cat >/srv/disks/big && sync /srv/disks/big")
	cmd.Stdin = io.LimitReader(rand.Reader, size)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// nothingLeft: no stage, no task that runs, and after down nothing at all.
func (s *stack) nothingLeft(t *testing.T) {
	for _, node := range []string{"alpha", "beta", "gamma"} {
		left := s.docker(t, "exec", s.container(t, node), "sh", "-c", "find /srv -path '*/.gantry/*'")
		require.Empty(t, left, "stages at %s", node)
	}
	require.NotContains(t, s.cli(t, "nodes", "--json"), `"tasks":1`)
	s.remove(t)
	for _, list := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}} {
		require.Empty(t, s.docker(t, append(list, "--filter", "label=com.docker.compose.project="+s.project)...), "%s", list[0])
	}
	for _, image := range images {
		require.Empty(t, s.docker(t, "images", "-q", image+":"+s.tag("new")))
	}
}

// remove takes away what the test made; the base image stays. Twice is fine.
func (s *stack) remove(t *testing.T) {
	if s.docker(t, "ps", "-aq", "--filter", "label=com.docker.compose.project="+s.project) != "" {
		if t.Failed() {
			t.Log("\n" + s.script(t, "", "logs"))
		}
		s.script(t, "", "down", "--volumes")
	}
	for _, image := range images {
		for _, tag := range []string{s.tag("old"), s.tag("new")} {
			_ = exec.Command("docker", "rmi", image+":"+tag).Run() // which may never have been made
		}
	}
}

func (s *stack) tag(which string) string { return s.project + "-" + which }

// run runs a program at the repository's top and returns what it printed.
func (s *stack) run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := s.try(argv...)
	require.NoError(t, err, "%s: %s", strings.Join(argv, " "), out)
	return out
}

func (s *stack) try(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = s.repo, s.env
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s *stack) docker(t *testing.T, args ...string) string {
	t.Helper()
	return s.run(t, append([]string{"docker"}, args...)...)
}

// script runs scripts/stack, with one more variable unless it is empty.
func (s *stack) script(t *testing.T, variable string, args ...string) string {
	t.Helper()
	if variable == "" {
		variable = "GANTRY_TAG=" + s.tag("new")
	}
	return s.run(t, append([]string{"env", variable, "scripts/stack"}, args...)...)
}

// cli runs the program outside of the stack.
func (s *stack) cli(t *testing.T, args ...string) string {
	t.Helper()
	return s.run(t, append([]string{s.gantry, "--home", s.home}, args...)...)
}

func (s *stack) container(t *testing.T, service string) string {
	t.Helper()
	id := s.docker(t, "ps", "-aq", "--filter", "label=com.docker.compose.project="+s.project, "--filter", "label=com.docker.compose.service="+service)
	require.NotEmpty(t, id, "there is no container of %s", service)
	return id
}

func (s *stack) imageSize(t *testing.T, image string) int64 {
	n, err := strconv.ParseInt(s.docker(t, "image", "inspect", "-f", "{{.Size}}", image), 10, 64)
	require.NoError(t, err)
	return n
}
