package main

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// terminal runs a gantry under a pseudo-terminal.
type terminal struct {
	t    *testing.T
	tty  *os.File
	mu   sync.Mutex
	text strings.Builder
	done chan int
}

func onTerminal(t *testing.T, home, state string, args ...string) *terminal {
	t.Helper()
	cmd := command(t, home, state, args...)
	cmd.SysProcAttr = nil // pty makes a session
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 120})
	require.NoError(t, err)
	x := &terminal{t: t, tty: tty, done: make(chan int, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			x.mu.Lock()
			x.text.Write(buf[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		err := cmd.Wait()
		<-read
		tty.Close()
		x.done <- exitOf(err)
	}()
	return x
}

func (x *terminal) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.text.String()
}

func (x *terminal) sees(want string) {
	x.t.Helper()
	require.Eventually(x.t, func() bool { return strings.Contains(x.String(), want) }, 20*time.Second, 2*time.Millisecond, "%s was not shown in %s", want, x)
}

func (x *terminal) types(s string) {
	_, err := x.tty.WriteString(s)
	require.NoError(x.t, err)
}

func (x *terminal) exit() int {
	select {
	case code := <-x.done:
		return code
	case <-time.After(60 * time.Second):
		require.FailNow(x.t, "still running", x.String())
		return -1
	}
}

const ctrlC = "\x03"

// TestTerminal: what Ctrl-C asks, and what the answers do.
func TestTerminal(t *testing.T) {
	c, home := newCluster(t)
	fill(t, c, "alpha", "big", lastingSize)
	t.Run("c cancels the job at the nodes", func(t *testing.T) {
		state := t.TempDir()
		x := onTerminal(t, home, state, "copy", "alpha:disks/big", "beta:disks/cancelled", "--bwlimit", lastingRate)
		x.sees("beta:cancelled fetch")
		x.types(ctrlC)
		x.sees("Type c to cancel")
		x.types("c\n")
		require.Equal(t, 1, x.exit(), x.String())
		require.Contains(t, x.String(), "(cancelled)")
		require.NoFileExists(t, c.Path("beta", "cancelled"))
		list, err := command(t, home, state, "jobs").Output()
		require.NoError(t, err)
		require.Contains(t, string(list), "cancelled")
	})
	t.Run("I142 interrupt twice leaves, and cancel ends what goes on", func(t *testing.T) {
		state := t.TempDir()
		x := onTerminal(t, home, state, "copy", "alpha:disks/big", "beta:disks/left", "--bwlimit", lastingRate)
		x.sees("beta:left fetch")
		x.types(ctrlC)
		x.sees("Type c to cancel")
		x.types(ctrlC)
		require.Equal(t, 6, x.exit(), x.String())
		list, err := command(t, home, state, "jobs").Output()
		require.NoError(t, err)
		id, _, _ := strings.Cut(strings.Split(string(list), "\n")[1], " ")
		out, err := command(t, home, state, "cancel", id).CombinedOutput()
		// Either it is cancelled in time, or it was done before.
		if code := exitOf(err); code == 4 {
			require.Contains(t, string(out), "too late")
		} else {
			require.Equal(t, 0, code, "%s", out)
			require.NoFileExists(t, c.Path("beta", "left"))
		}
		out, err = command(t, home, state, "cancel", id).CombinedOutput()
		require.Equal(t, 4, exitOf(err), "%s", out)
		require.Contains(t, string(out), "has ended")
	})
	t.Run("another key stays, with live values", func(t *testing.T) {
		state := t.TempDir()
		x := onTerminal(t, home, state, "copy", "alpha:disks/big", "beta:disks/stayed", "--bwlimit", lastingRate)
		x.sees("beta:stayed fetch")
		list, err := command(t, home, state, "jobs").Output()
		require.NoError(t, err)
		id, _, _ := strings.Cut(strings.Split(string(list), "\n")[1], " ")
		y := onTerminal(t, home, state, "watch", id) // names what it shows as the copy does
		y.sees("beta:stayed fetch")
		x.types(ctrlC)
		x.sees("Type c to cancel")
		x.types("\n")
		out, err := command(t, home, state, "limit", id, "0").CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, 0, y.exit(), y.String())
		require.Contains(t, y.String(), "beta:disks/stayed: created")
		require.Equal(t, 0, x.exit(), x.String())
		require.Contains(t, x.String(), "beta:disks/stayed: created")
		require.Contains(t, x.String(), "/s, ") // rate and time left
	})
}
