package testkit_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv(leakVar) != "" {
		testkit.SetPatience(500 * time.Millisecond)
	}
	testkit.Main(m)
}

// leaks each leave one thing behind. They run in a child process.
var leaks = map[string]func(t *testing.T){
	"nothing":   func(t *testing.T) { testkit.Dir(t) },
	"goroutine": func(*testing.T) { go func() { select {} }() },
	"descriptor": func(t *testing.T) {
		_, w, err := os.Pipe()
		require.NoError(t, err)
		kept = append(kept, w)
	},
	"listener": func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		kept = append(kept, l)
	},
	"child": func(t *testing.T) {
		require.NoError(t, exec.Command("sleep", "60").Start())
	},
	"grandchild": func(t *testing.T) {
		require.NoError(t, exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 &").Run())
	},
	"file": func(t *testing.T) {
		f, err := os.CreateTemp("", "x")
		require.NoError(t, err)
		f.Close()
	},
	"socket in Dir": func(t *testing.T) {
		addr := &net.UnixAddr{Net: "unix", Name: filepath.Join(testkit.Dir(t), "s")}
		l, err := net.ListenUnix("unix", addr)
		require.NoError(t, err)
		l.SetUnlinkOnClose(false)
		l.Close()
	},
	"stage in Dir": func(t *testing.T) {
		dir := filepath.Join(testkit.Dir(t), ".gantry")
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "stage"), nil, 0o600))
	},
}

// kept holds what leaks left, so that the collector does not close it.
var kept []any

// shows is a part of what Main must print about each leak.
var shows = map[string]string{
	"goroutine":     "left behind: goroutine ",
	"descriptor":    "left behind: descriptor ",
	"listener":      ": socket:[",
	"child":         "sleep 60",
	"grandchild":    "sleep 60",
	"file":          "left behind: file ",
	"socket in Dir": "left behind: socket ",
	"stage in Dir":  "left behind: stage ",
}

// leakVar names the leak that a child process makes.
const leakVar = "TESTKIT_LEAK"

func TestLeaksFailTheRun(t *testing.T) {
	if name := os.Getenv(leakVar); name != "" {
		leaks[name](t)
		return
	}
	for name := range leaks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestLeaksFailTheRun$")
			cmd.Env = append(os.Environ(), leakVar+"="+name)
			out, err := cmd.CombinedOutput()
			if name == "nothing" {
				require.NoError(t, err, "%s", out)
				return
			}
			require.Error(t, err, "the run passed: %s", out)
			require.Contains(t, string(out), shows[name])
		})
	}
}
