package main

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/cluster"

	"github.com/stretchr/testify/require"
)

// TestWatchThroughKilledMaster: who submitted a job and who watches it see each
// of its records once, in order, to the end, while the master and its front are
// killed under them.
func TestWatchThroughKilledMaster(t *testing.T) {
	c, _, home, _ := outside(t, 1)
	fill(t, c, "alpha", "big", 48<<20)
	copying := command(t, home, t.TempDir(), "copy", "alpha:disks/big", "beta:disks/big", "--bwlimit", "8M", "--json")
	out, err := copying.StdoutPipe()
	require.NoError(t, err)
	var said, told strings.Builder
	copying.Stderr = &said
	require.NoError(t, copying.Start())
	t.Cleanup(func() { _ = copying.Process.Kill(); _ = copying.Wait() })
	first := until(t, out, `"kind":"progress","item":"beta:`)
	list, err := command(t, home, t.TempDir(), "jobs").Output()
	require.NoError(t, err)
	id, _, _ := strings.Cut(strings.Split(string(list), "\n")[1], " ")
	watching := command(t, home, t.TempDir(), "watch", id, "--json")
	watching.Stderr = &told
	feed, err := watching.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, watching.Start())
	t.Cleanup(func() { _ = watching.Process.Kill(); _ = watching.Wait() })
	seen := until(t, feed, `"seq":1,`)

	for _, program := range []string{demoMasterProgram, demoMaster + "/front", demoMasterProgram} {
		before := c.Process(program)
		require.NoError(t, c.Kill(program))
		require.NoError(t, c.Await(t.Context(), program, func(p cluster.Process) bool { return p.Starts > before.Starts && p.PID != 0 }))
		require.NoError(t, c.Ready(t.Context()))
	}
	rest, err := io.ReadAll(out)
	require.NoError(t, err)
	require.NoError(t, copying.Wait(), "%s", &said)
	more, err := io.ReadAll(feed)
	require.NoError(t, err)
	require.NoError(t, watching.Wait(), "%s", &told)
	for who, text := range map[string]string{"copy": first + string(rest), "watch": seen + string(more)} {
		last, finals := int64(0), 0
		for line := range strings.Lines(text) {
			rec, err := feedback.Decode([]byte(strings.TrimSuffix(line, "\n")))
			require.NoError(t, err, line)
			if rec.Kind.Final() {
				finals++
			}
			if rec.Kind.Stored() {
				require.Equal(t, last+1, rec.Seq, "%s: %s", who, line)
				last = rec.Seq
			}
		}
		require.Equal(t, 1, finals, "%s: %s", who, text)
		require.Contains(t, text, "the master was started again", who)
	}
	same, err := exec.Command("cmp", c.Path("alpha", "big"), c.Path("beta", "big")).CombinedOutput()
	require.NoError(t, err, "%s", same)
}

// until reads from r up to a text, and returns what it has read.
func until(t *testing.T, r io.Reader, want string) string {
	t.Helper()
	var text strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(text.String(), want) {
		n, err := r.Read(buf)
		text.Write(buf[:n])
		require.NoError(t, err, "%s", &text)
	}
	return text.String()
}

// TestTerminalAtMaster: Ctrl-C asks, and the job is the master's to go on with
// unless the answer is to cancel it.
func TestTerminalAtMaster(t *testing.T) {
	c, m, home, _ := outside(t, 1)
	fill(t, c, "alpha", "big", lastingSize)
	x := onTerminal(t, home, t.TempDir(), "copy", "alpha:disks/big", "beta:disks/big", "--bwlimit", lastingRate)
	x.sees("beta:big fetch")
	x.types(ctrlC)
	x.sees("Master hub goes on without this command. Type c to cancel")
	x.types("no\n") // stays
	x.types(ctrlC)
	x.sees("anything else to stay; Ctrl-C again leaves")
	x.types("l\n")
	require.Equal(t, api.ExitLeft, x.exit(), x.String())
	require.Contains(t, x.String(), "goes on at master hub")
	j := onlyJob(t, m)
	require.False(t, j.State.Final(), "%+v", j)

	x = onTerminal(t, home, t.TempDir(), "watch", j.ID)
	x.sees("beta:big fetch")
	x.types(ctrlC)
	x.sees("Type c to cancel")
	x.types("c\n")
	require.Equal(t, api.ExitFailed, x.exit(), x.String())
	require.Contains(t, x.String(), "(cancelled)")
	require.Eventually(t, func() bool { return onlyJob(t, m).State == api.JobCancelled }, 10*time.Second, 10*time.Millisecond)
	require.NoFileExists(t, c.Path("beta", "big"))
}
