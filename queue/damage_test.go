package queue_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/api"
	"gantry/feedback"
	"gantry/queue"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// filled is a store with a history, as a kill left it: part of it is in the log only.
func filled(t testing.TB) (dir string, jobs []queue.Job) {
	t.Helper()
	dir = t.TempDir()
	s, err := queue.Open(filepath.Join(dir, "live.db"), queue.Options{})
	require.NoError(t, err)
	ids := addJobs(t, s, 60)
	slices.Sort(ids)
	for k, id := range ids {
		f := openFeed(t, s, id)
		for n := range 5 {
			f.Log("info", "", strings.Repeat(fmt.Sprint("line ", n, " "), 40))
		}
		require.NoError(t, f.Finish(k, nil))
		require.NoError(t, f.Close())
		_, err := s.Audit(t.Context(), queue.AuditEntry{Who: "ann", What: "submit", Object: id, Decision: "allowed"})
		require.NoError(t, err)
		j, err := s.Update(t.Context(), id, func(j *queue.Job) error { j.State, j.Outcome = queue.Done, api.Done; return nil })
		require.NoError(t, err)
		jobs = append(jobs, j)
		if k == 30 { // what follows is in the log
			require.NoError(t, s.Close())
			s, err = queue.Open(filepath.Join(dir, "live.db"), queue.Options{})
			require.NoError(t, err)
		}
	}
	for _, suffix := range []string{"", "-wal"} {
		copyFile(t, filepath.Join(dir, "live.db"+suffix), filepath.Join(dir, "killed.db"+suffix))
	}
	require.NoError(t, s.Close())
	return dir, jobs
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, b, 0o600))
}

// readAll reads everything, and returns the jobs; an error must say damaged.
func readAll(t testing.TB, path string) (jobs []queue.Job, err error) {
	s, err := queue.Open(path, queue.Options{})
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := s.Close(); err == nil && cerr != nil {
			err = cerr
		}
	}()
	ctx := context.Background()
	if jobs, err = s.Jobs(ctx, queue.Query{Limit: 1000}); err != nil {
		return nil, err
	}
	slices.Reverse(jobs)
	for k, j := range jobs {
		if _, err := s.Attempts(ctx, j.ID); err != nil {
			return nil, err
		}
		f, err := feedback.OpenJournal(s.Journal(j.ID), feedback.Options{})
		if err != nil {
			return nil, err
		}
		n := 0
		for rec, err := range f.Records(0) {
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			if n++; n <= 5 && !strings.Contains(string(rec.Line), fmt.Sprint("line ", n-1)) {
				return nil, fmt.Errorf("job %d: record %d is another: %s", k, n, rec.Line)
			}
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	_, err = s.VerifyAudit(ctx)
	return jobs, err
}

var flips = flag.Int("queue.flips", 30, "how many damaged files TestFlippedBytes tries")

// A store with flipped, zeroed or lost bytes anywhere is refused, or what is read
// is what was written; nothing panics.
func TestFlippedBytes(t *testing.T) {
	dir, jobs := filled(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	whole := map[string][]byte{}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, "killed.db"+suffix))
		require.NoError(t, err)
		require.NotEmpty(t, b)
		whole[suffix] = b
	}
	path := filepath.Join(dir, "damaged.db")
	refused := 0
	for k := range *flips {
		suffix := []string{"", "-wal"}[k%2]
		b := slices.Clone(whole[suffix])
		at := rng.IntN(len(b))
		if k%5 == 0 {
			at = rng.IntN(100) // the header
		}
		what := ""
		switch k / 2 % 3 {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
			what = fmt.Sprintf("%q: bit of byte %d", suffix, at)
		case 1:
			clear(b[at:min(at+512, len(b))])
			what = fmt.Sprintf("%q: zeros from %d", suffix, at)
		case 2:
			b = b[:at]
			what = fmt.Sprintf("%q: cut at %d", suffix, at)
		}
		for _, s := range []string{"", "-wal", "-shm"} {
			require.NoError(t, errors.Join(os.RemoveAll(path+s)))
			if s != "-shm" {
				require.NoError(t, os.WriteFile(path+s, whole[s], 0o600))
			}
		}
		require.NoError(t, os.WriteFile(path+suffix, b, 0o600))
		got, err := readAll(t, path)
		if err != nil {
			refused++
			require.True(t, errors.Is(err, queue.ErrDamaged) || errors.Is(err, queue.ErrAudit), "%s: %v", what, err)
			continue
		}
		// A log that was cut, or whose last commit is bad, ends there as after a crash.
		lost := len(jobs) - len(got)
		require.GreaterOrEqual(t, lost, 0, what)
		if suffix == "" {
			require.Equal(t, jobs, got, what)
		}
	}
	require.Greater(t, refused, *flips/4)
	t.Logf("%d of %d were refused", refused, *flips)
}

// Damage in the middle of the log is not taken for its end.
func TestBadFrameInTheMiddleOfTheLog(t *testing.T) {
	dir, _ := filled(t)
	path := filepath.Join(dir, "killed.db")
	b, err := os.ReadFile(path + "-wal")
	require.NoError(t, err)
	whole := slices.Clone(b)
	for name, at := range map[string]int{"its header": 17, "its first frame": 32 + 24 + 100, "the salts of a frame": 32 + 9, "its middle": len(b) / 2} {
		t.Run(name, func(t *testing.T) {
			b := slices.Clone(whole)
			b[at] ^= 4
			require.NoError(t, os.WriteFile(path+"-wal", b, 0o600))
			_, err := queue.Open(path, queue.Options{})
			require.ErrorIs(t, err, queue.ErrDamaged)
			require.ErrorContains(t, err, "its log")
			after, err := os.ReadFile(path + "-wal")
			require.NoError(t, err)
			require.Equal(t, b, after, "nothing was changed")
		})
	}
	require.NoError(t, os.WriteFile(path+"-wal", whole[:len(whole)-7], 0o600))
	_, err = readAll(t, path)
	require.NoError(t, err, "a crash tears the end")
}

func TestWhatIsNoStore(t *testing.T) {
	dir := t.TempDir()
	made := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, b, 0o600))
		return path
	}
	other := filepath.Join(dir, "other.db")
	behind(t, other, "CREATE TABLE t (x)", "PRAGMA journal_mode=DELETE")
	_, good := newClosed(t)
	whole, err := os.ReadFile(good)
	require.NoError(t, err)
	for name, c := range map[string]struct{ path, says string }{
		"an empty file":         {made("empty", nil), "shorter than a header"},
		"a text":                {made("text", []byte(strings.Repeat("once upon a time ", 100))), "no SQLite database"},
		"another database":      {other, "not a store of gantry"},
		"half a store":          {made("half", whole[:len(whole)/2]), "damaged"},
		"a header alone":        {made("head", whole[:100]), "damaged"},
		"a store and some more": {made("more", append(slices.Clone(whole), 7)), ""},
		"a folder":              {dir, "no file"},
		"no folder":             {filepath.Join(dir, "none", "queue.db"), "no such file"},
		"a pipe":                {pipe(t, dir), "no file"},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := os.ReadFile(c.path + "x")
			s, err := queue.Open(c.path, queue.Options{})
			if c.says == "" {
				require.NoError(t, err)
				require.NoError(t, s.Close())
				return
			}
			require.ErrorContains(t, err, c.says)
			after, _ := os.ReadFile(c.path + "x")
			require.Equal(t, before, after)
			if name != "a pipe" {
				require.Error(t, queue.CheckFile(t.Context(), c.path))
				require.Error(t, queue.BackupFile(t.Context(), c.path, filepath.Join(dir, "copy.db")))
			}
			require.NoFileExists(t, filepath.Join(dir, "copy.db"))
		})
	}
	t.Run("a log without its file", func(t *testing.T) {
		made("gone.db-wal", []byte("x"))
		_, err := queue.Open(filepath.Join(dir, "gone.db"), queue.Options{})
		require.ErrorIs(t, err, queue.ErrDamaged)
		require.NoFileExists(t, filepath.Join(dir, "gone.db"))
	})
	t.Run("a newer store", func(t *testing.T) {
		behind(t, good, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (7, 1)")
		_, err := queue.Open(good, queue.Options{})
		require.ErrorIs(t, err, queue.ErrNewer)
	})
}

func pipe(t *testing.T, dir string) string {
	path := filepath.Join(dir, "pipe")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	return path
}

// behind changes a file behind the store's back.
func behind(t testing.TB, path string, statements ...string) {
	t.Helper()
	db := openSQL(t, path)
	for _, s := range statements {
		_, err := db.Exec(s)
		require.NoError(t, err, s)
	}
	require.NoError(t, db.Close())
}

func openSQL(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	return db
}

func TestTwoMasters(t *testing.T) {
	s, path := newStore(t)
	_, err := queue.Open(path, queue.Options{})
	require.ErrorIs(t, err, queue.ErrLocked)
	require.ErrorContains(t, err, fmt.Sprint("process ", os.Getpid()))
	_, err = queue.Restore(t.Context(), path, path)
	require.ErrorIs(t, err, queue.ErrLocked)
	require.NoError(t, s.Close())
	reopen(t, path)
}

// small mounts a file system of some bytes, or skips the test.
func small(t testing.TB, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("queue-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skip("no file systems can be mounted here: ", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	return dir
}

func TestDiskFull(t *testing.T) {
	for _, size := range []int{256 << 10, 512 << 10, 1 << 20, 3 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			path := filepath.Join(small(t, size), "queue.db")
			var broken error
			s, err := queue.Open(path, queue.Options{OnBroken: func(err error) { broken = err }})
			if err != nil {
				require.ErrorContains(t, err, "disk is full")
				return
			}
			var acked []string
			j := aJob()
			j.Spec = api.Raw(`"` + strings.Repeat("x", 5000) + `"`)
			for err == nil && len(acked) < 10_000 {
				var got queue.Job
				if got, _, err = s.Add(t.Context(), j); err == nil {
					acked = append(acked, got.ID)
				}
			}
			require.ErrorIs(t, err, queue.ErrBroken)
			require.ErrorContains(t, err, "the disk is full")
			require.ErrorIs(t, s.SaveAttempt(t.Context(), queue.Attempt{Job: j.ID, N: 1}), queue.ErrBroken, "it sticks")
			_, err = s.Unfinished(t.Context())
			require.NoError(t, err, "it can be read")
			_ = s.Close() // the log may not fit into the file
			require.ErrorIs(t, broken, queue.ErrBroken)

			require.NoError(t, unix.Mount("", filepath.Dir(path), "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size*8)))
			s = reopen(t, path)
			for _, id := range acked {
				_, err := s.Job(t.Context(), id)
				require.NoError(t, err)
			}
			_, _, err = s.Add(t.Context(), j)
			require.NoError(t, err, "there is room again")
			require.NoError(t, s.Check(t.Context()))
			require.NoError(t, s.Close())
		})
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := small(t, 4<<20)
	path := filepath.Join(dir, "queue.db")
	s, err := queue.Open(path, queue.Options{})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = queue.Open(path, queue.Options{})
	require.ErrorContains(t, err, "read-only")
	require.NotErrorIs(t, err, queue.ErrDamaged)
}

// What SQLite takes for sound is not always what was written.
func TestChangedRows(t *testing.T) {
	for name, change := range map[string]string{
		"a record":               `UPDATE records SET line = replace(line, 'xx', 'xy')`,
		"a record in its place":  `UPDATE records SET place = place + 1000`,
		"a job":                  `UPDATE jobs SET owner = 'bob'`,
		"a job's final":          `UPDATE jobs SET final = x'7b7d'`,
		"an attempt":             `UPDATE attempts SET info = x'7b7d'`,
		"an attempt of another":  `UPDATE attempts SET number = number + 1`,
		"a record without a job": `INSERT INTO records SELECT place + 4294967296, sum, line FROM records`,
	} {
		t.Run(name, func(t *testing.T) {
			s, path := newStore(t)
			id := ended(t, s, "", 2)
			require.NoError(t, s.Check(t.Context()))
			require.NoError(t, s.Close())
			behind(t, path, change)
			require.ErrorIs(t, queue.CheckFile(t.Context(), path), queue.ErrDamaged)
			require.ErrorIs(t, queue.BackupFile(t.Context(), path, path+".copy"), queue.ErrDamaged)
			if name == "a record without a job" {
				return
			}
			_, err := readAll(t, path)
			require.ErrorIs(t, err, queue.ErrDamaged)

			s = reopen(t, path)
			require.ErrorIs(t, s.Check(t.Context()), queue.ErrDamaged)
			_, err = s.Update(t.Context(), id, func(*queue.Job) error { return nil })
			require.ErrorIs(t, err, queue.ErrBroken, "nothing is built on it")
		})
	}
}
