//go:build stack

package stacktest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is how long a copy may make no progress once nothing hinders it:
// longer than every timeout of fronts and clients, and their retries' waits, and
// than the engine takes to remake a container on a busy machine.
const patience = 5 * time.Minute

// record is what the checks need of a line of a job's feed.
type record struct {
	Seq    int64     `json:"seq"`
	T      time.Time `json:"t"`
	Kind   string    `json:"kind"`
	ID     string    `json:"id"`
	Task   string    `json:"task"`
	Phase  string    `json:"phase"`
	Done   int64     `json:"done"`
	Record *record   `json:"record"`
	Seen   time.Time `json:"-"`
	line   string
}

func (r record) final() bool { return r.Kind == "result" || r.Kind == "error" }

// copying is a gantry copy that runs outside of the stack.
type copying struct {
	name   string
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{} // closed when the program is gone
	err    error         // of the program; set before ended is closed
	moved  chan struct{} // something was read

	mu      sync.Mutex
	records []record
}

// begin starts a copy.
func (s *stack) begin(t *testing.T, from, to string, flags ...string) *copying {
	t.Helper()
	c := &copying{name: from + " to " + to, ended: make(chan struct{}), moved: make(chan struct{}, 1)}
	c.cmd = exec.Command(s.gantry, append([]string{"--home", s.home, "--json", "copy", "--new", from, to}, flags...)...)
	c.cmd.Env, c.cmd.Stderr = s.env, &c.stderr
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	go c.read(out)
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // nothing to do if it has ended, as it should
		<-c.ended
	})
	return c
}

func (c *copying) read(out io.Reader) {
	defer close(c.ended)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			r.Kind = "no record: " + lines.Text()
		}
		r.Seen, r.line = time.Now(), lines.Text()
		c.mu.Lock()
		c.records = append(c.records, r)
		c.mu.Unlock()
		select {
		case c.moved <- struct{}{}:
		default:
		}
	}
	c.err = c.cmd.Wait()
}

func (c *copying) all() []record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]record(nil), c.records...)
}

// fetched is how much the importer said last that it has, -1 before it began.
func (c *copying) fetched() int64 {
	last := int64(-1)
	for _, r := range c.all() {
		if r.Kind == "progress" && r.Phase == "fetch" {
			last = r.Done
		}
	}
	return last
}

// await waits until more than n bytes are fetched, or the copy has ended; moved
// says that they are.
func (c *copying) await(t *testing.T, n int64) (moved bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for c.fetched() <= n {
		select {
		case <-c.moved:
		case <-c.ended:
			return c.fetched() > n
		case <-deadline.C:
			t.Fatalf("%s made no progress for %v: %d bytes; %s", c.name, patience, c.fetched(), &c.stderr)
		}
	}
	return true
}

// end waits for the end, which must be done, and holds the feed to what every
// feed promises: numbered without gap or repeat, the job's as well as each
// task's in it, and exactly one final, which is last.
func (c *copying) end(t *testing.T) {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v; %s", c.name, patience, &c.stderr)
	}
	require.NoError(t, c.err, "%s: %s", c.name, &c.stderr)
	all, tasks, finals := c.all(), map[string]int64{}, map[string]int{}
	job := int64(0)
	for _, r := range all[1:] {
		if r.Seq == 0 {
			require.Contains(t, []string{"progress", "heartbeat", "hello"}, r.Kind, "%s: a record without a number", c.name)
			// A feed of the master begins with one each time that it is attached to.
			require.True(t, r.Kind != "hello" || r.ID == all[0].ID, "%s: hello of %s", c.name, r.ID)
			continue
		}
		require.Equal(t, job+1, r.Seq, "%s: record %d of the job follows %d", c.name, r.Seq, job)
		job = r.Seq
		if r.Kind != "task" {
			if r.final() {
				finals["job"]++
			}
			continue
		}
		if r.Record == nil || r.Record.Seq == 0 {
			continue
		}
		require.Equal(t, tasks[r.Task]+1, r.Record.Seq, "%s: record of task %s", c.name, r.Task)
		tasks[r.Task] = r.Record.Seq
		if r.Record.final() {
			finals[r.Task]++
		}
	}
	require.Equal(t, "result", all[len(all)-1].Kind, c.name)
	require.Equal(t, 1, finals["job"], c.name)
	require.Len(t, tasks, 2, "%s: an export and an import", c.name)
	for task := range tasks {
		require.LessOrEqual(t, finals[task], 1, "%s: finals of task %s", c.name, task)
	}
}

// volume is where a file of NODE:RESOURCE/PATH lies: the volume and the path in it.
func (s *stack) volume(address string) (volume, path string) {
	node, rest, _ := strings.Cut(address, ":")
	resource, path, _ := strings.Cut(rest, "/")
	return s.project + "_" + node + "-" + resource, path
}

// same compares two files byte by byte.
func (s *stack) same(t *testing.T, one, two string) {
	t.Helper()
	a, pathA := s.volume(one)
	b, pathB := s.volume(two)
	s.docker(t, "run", "--rm", "--network", "none", "--user", "0:0", "-v", a+":/a:ro", "-v", b+":/b:ro",
		"--entrypoint", "cmp", "gantry:"+s.tag("new"), "/a/"+pathA, "/b/"+pathB)
}

// exists says whether a file is there.
func (s *stack) exists(t *testing.T, address string) bool {
	t.Helper()
	return s.at(t, address, "test", "-e") == nil
}

func (s *stack) removeFile(t *testing.T, address string) {
	t.Helper()
	require.NoError(t, s.at(t, address, "rm"))
}

// at runs a command about a file, whatever its node's containers do.
func (s *stack) at(t *testing.T, address string, command ...string) error {
	t.Helper()
	volume, path := s.volume(address)
	_, err := s.try(append(append([]string{"docker", "run", "--rm", "--network", "none", "--user", "58260:58260", "-v", volume + ":/v",
		"--entrypoint", command[0], "gantry:" + s.tag("new")}, command[1:]...), "/v/"+path)...)
	return err
}

// thereAndBack is what a user does first, through the master; its feed must be
// live.
func (s *stack) thereAndBack(t *testing.T) {
	for _, way := range [][2]string{{"alpha:disks/big", "beta:disks/there"}, {"beta:disks/there", "alpha:disks/back"}} {
		at := time.Now()
		c := s.begin(t, way[0], way[1])
		c.end(t)
		t.Logf("%s: %v", c.name, time.Since(at).Round(time.Millisecond))
		progress := 0
		for _, r := range c.all()[1:] {
			if r.Kind == "progress" && r.Phase == "fetch" {
				progress++
			}
			if r.Seq > 0 {
				require.Less(t, r.Seen.Sub(r.T), time.Second, "record %d was late", r.Seq)
			}
		}
		require.Greater(t, progress, 1, "progress is shown while it is made")
		s.kept(t, c)
		s.same(t, "alpha:disks/big", way[1])
	}
	s.removeFile(t, "beta:disks/there")
	s.removeFile(t, "alpha:disks/back")
	c := s.begin(t, "alpha:disks/big", "gamma:archive/big", "--master", "none") // which its front sends later
	c.end(t)
	s.same(t, "alpha:disks/big", "gamma:archive/big")
}
