package job

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/atomicfile"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// formatVersion is that of job.json. A newer one is refused.
const formatVersion = 1

// keepEnded is how long ended jobs stay in the list.
const keepEnded = 30 * 24 * time.Hour

// Errors that callers branch on.
var (
	// ErrDriven: another process drives the job.
	ErrDriven = errors.New("another gantry process drives this job")
	// ErrBegun says that a job which could not be opened may have ended at its
	// nodes meanwhile, in whatever way.
	ErrBegun = errors.New("its outcome is unknown here: the same command, or gantry watch, asks its nodes")
	// ErrNotFound: no job, or more than one, has that id.
	ErrNotFound = errors.New("there is no such job")
)

// Store is a folder of jobs. Its methods may be called from several processes.
type Store struct {
	dir string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// OpenStore opens the folder dir, which is made if needed, for the caller only.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of jobs: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Task is one task of a job, as it is kept.
type Task struct {
	Node    string          `json:"node"`
	Request api.TaskRequest `json:"request"`
	// Sent is set, durably, before a start is sent, with the node's dir_id.
	Sent  bool   `json:"sent,omitzero"`
	DirID string `json:"dir_id,omitzero"`
	// Refused is why the node refused to start it, which proves that it never
	// began; nil: it was not.
	Refused *feedback.Error `json:"refused,omitzero"`
}

// Info is what job.json holds.
type Info struct {
	V       int              `json:"v"`
	ID      string           `json:"id"`
	Spec    Spec             `json:"spec"`
	Created time.Time        `json:"created"`
	Tasks   map[string]*Task `json:"tasks"`
	// Way is the one chosen for a copy; "" before, and for other jobs.
	Way string `json:"way,omitzero"`
	// Outcome is "" until the job has ended.
	Outcome api.Outcome `json:"outcome,omitzero"`
	Ended   time.Time   `json:"ended,omitzero"`
	Final   api.Raw     `json:"final,omitzero"` // the final record's line
}

// Short is the end of the id, which differs where the beginning does not: ids
// begin with their time.
func (i *Info) Short() string { return i.ID[len(i.ID)-8:] }

// Main is the task whose outcome is the job's.
func (i *Info) Main() *Task {
	if i.Spec.Kind == Call {
		return &Task{} // the roles of its tasks are names of nodes
	}
	for _, role := range []string{roleImport, roleDigest, roleExport} {
		if t := i.Tasks[role]; t != nil {
			return t
		}
	}
	return &Task{}
}

// Stage is the import whose stage a later task may take over; "": there is none,
// or it was never begun.
func (i *Info) Stage() string {
	if t := i.Tasks[roleImport]; t != nil && t.Sent && t.Refused == nil {
		return t.Request.ID
	}
	return ""
}

// Begun says whether a start of one of the job's tasks may have been sent.
func (i *Info) Begun() bool {
	for _, t := range i.Tasks {
		if t.Sent {
			return true
		}
	}
	return false
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Begin takes up the unfinished job of spec, or makes a new one; fresh always
// makes a new one. The job is open and locked.
func (s *Store) Begin(spec Spec, fresh bool) (j *Job, resumed bool, err error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	// What many nodes said some time ago is no answer to asking them now.
	if !fresh && spec.resumable() && spec.Kind != Call {
		infos, err := s.List()
		if err != nil {
			return nil, false, err
		}
		for _, info := range infos {
			if info.Outcome == "" && info.Spec.equal(spec) {
				j, err := s.open(info.ID)
				return j, true, err
			}
		}
	}
	j, err = s.create(spec)
	return j, false, err
}

// lock keeps two equal commands from making two jobs.
func (s *Store) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the folder of jobs: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking the folder of jobs: %w", err)
	}
	return func() { f.Close() }, nil
}

func (s *Store) create(spec Spec) (*Job, error) {
	tasks, err := spec.tasks()
	if err != nil {
		return nil, err
	}
	j := s.job(api.NewID())
	j.Info = Info{V: formatVersion, ID: filepath.Base(j.dir), Spec: spec, Created: s.now().UTC(), Tasks: tasks}
	if err := os.Mkdir(j.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a job: %w", err)
	}
	made := false
	defer func() {
		if !made {
			j.Close()
			os.RemoveAll(j.dir)
		}
	}()
	if err := j.takeLock(); err != nil {
		return nil, err
	}
	if j.feed, err = feedback.Create(filepath.Join(j.dir, "feed"), feedback.Options{ID: j.ID, Job: true}); err != nil {
		return nil, fmt.Errorf("making a job: %w", err)
	}
	// job.json last: only with it the job exists.
	if err := j.keeper.Save(&j.Info); err != nil {
		return nil, err
	}
	if err := atomicfile.SyncDir(s.dir, "job.dir.sync"); err != nil {
		return nil, err
	}
	made = true
	return j, nil
}

// Open opens and locks a job to drive it.
func (s *Store) Open(id string) (*Job, error) {
	info, err := s.Find(id)
	if err != nil {
		return nil, err
	}
	return s.open(info.ID)
}

func (s *Store) open(id string) (*Job, error) {
	j := s.job(id)
	if err := j.takeLock(); err != nil {
		return nil, err
	}
	info, err := s.read(id) // again, under the lock
	if err != nil {
		j.Close()
		return nil, err
	}
	j.Info = *info
	if j.feed, err = feedback.Open(filepath.Join(j.dir, "feed"), feedback.Options{ID: j.ID, Job: true}); err == nil {
		err = j.settle()
	}
	if err == nil {
		return j, nil
	}
	j.Close()
	err = fmt.Errorf("opening job %s: %w", info.Short(), err)
	if info.Begun() {
		err = fmt.Errorf("%w; %w", err, ErrBegun)
	}
	return nil, err
}

// job is a job of the folder, neither locked nor read.
func (s *Store) job(id string) *Job {
	j := &Job{dir: filepath.Join(s.dir, id), now: s.now}
	j.keeper = &folder{j: j}
	return j
}

// folder keeps a job in a folder of its own, locked by this process.
type folder struct {
	j    *Job
	lock *os.File
}

func (j *Job) takeLock() error {
	f, err := os.OpenFile(filepath.Join(j.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("locking the job: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return ErrDriven
		}
		return fmt.Errorf("locking the job: %w", err)
	}
	j.keeper = &folder{j, f}
	return nil
}

// Save implements Keeper: it writes job.json.
func (k *folder) Save(info *Info) error {
	b, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("keeping the job: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(k.j.dir, "job.json"), append(b, '\n'), 0o600, "job.file"); err != nil {
		return fmt.Errorf("keeping the job: %w", err)
	}
	return nil
}

// Close implements Keeper: the feed is closed before the lock is given up.
func (k *folder) Close() error {
	var err error
	if k.j.feed != nil {
		err = k.j.feed.Close()
	}
	if k.lock != nil {
		k.lock.Close()
	}
	return err
}

// Find finds a job by the end or the beginning of its id.
func (s *Store) Find(id string) (*Info, error) {
	infos, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []*Info
	for _, info := range infos {
		if info.ID == id {
			return info, nil
		}
		if id != "" && (strings.HasSuffix(info.ID, id) || strings.HasPrefix(info.ID, id)) {
			found = append(found, info)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("job %q: %w; gantry jobs lists them", id, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("job %q: %d jobs have an id like that, name more of it: %w", id, len(found), ErrNotFound)
}

// List returns the jobs, newest first.
func (s *Store) List() ([]*Info, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("listing jobs: %w", err)
	}
	var infos []*Info
	for _, e := range entries {
		if !e.IsDir() || !api.ValidID(e.Name()) {
			continue
		}
		info, err := s.read(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was never made, or is being made
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b *Info) int { return strings.Compare(b.ID, a.ID) })
	return infos, nil
}

func (s *Store) read(id string) (*Info, error) {
	path := filepath.Join(s.dir, id, "job.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading job: %w", err)
	}
	var info Info
	var version struct {
		V int `json:"v"`
	}
	if err := decodeLoosely(b, &version); err == nil && version.V > formatVersion {
		return nil, fmt.Errorf("%s was written by a newer gantry (format %d, this one knows %d); use that one", path, version.V, formatVersion)
	}
	if err := api.DecodeBytes(b, &info); err != nil {
		return nil, fmt.Errorf("reading %s: %w; move the folder away to go on without this job", path, err)
	}
	if info.ID != id {
		return nil, fmt.Errorf("reading %s: it is job %s; move the folder away", path, info.ID)
	}
	return &info, nil
}

// Sweep removes jobs that ended long ago, and folders of jobs that were never
// made.
func (s *Store) Sweep() error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("sweeping jobs: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !api.ValidID(e.Name()) {
			continue
		}
		info, err := s.read(e.Name())
		gone := errors.Is(err, fs.ErrNotExist)
		if gone || err == nil && info.Outcome != "" && s.now().Sub(info.Ended) > keepEnded {
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				return fmt.Errorf("sweeping jobs: %w", err)
			}
		}
	}
	return nil
}
