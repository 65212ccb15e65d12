package queue

import (
	"bufio"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"gantry/internal/atomicfile"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver
)

const (
	walSuffix = "-wal"
	// applicationID is in the header of each store: "gntq".
	applicationID = 0x676e7471
	// busyTimeout is how long a statement waits for another process, such as a
	// backup that ends.
	busyTimeout = 10 * time.Second
	// walPages is how long the log gets before it is folded into the file: 16 MiB.
	walPages = 4096
	// maxReaders bounds the connections for reading: each has a cache of 2 MiB.
	maxReaders = 4
	// glanceTime is how long Open looks for damage.
	glanceTime = time.Second
)

// schema has the migrations, one folder per dialect.
//
//go:embed migrations/*.sql
var schema embed.FS

// mode of a connection.
type mode int

const (
	readWrite mode = iota
	readOnly
	copyOnly // reads the file, and may write a copy of it elsewhere
)

// connect opens connections to the file at path.
func connect(path string, m mode) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"mode": {"ro"}}
	pragmas := []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"synchronous(FULL)", // each commit is on disk when it returns
		"foreign_keys(1)",
		"trusted_schema(0)",  // the schema of a strange file runs nothing
		"cell_size_check(1)", // damage is an error as early as possible
	}
	switch m {
	case readWrite:
		q.Set("mode", "rw")
		pragmas = append(pragmas, "journal_mode(WAL)", fmt.Sprintf("wal_autocheckpoint(%d)", walPages), fmt.Sprintf("journal_size_limit(%d)", 4*walPages*4096))
	case readOnly:
		pragmas = append(pragmas, "query_only(1)")
	}
	q["_pragma"] = pragmas
	u := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	n := 1
	if m == readOnly {
		n = maxReaders
	}
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	return db, nil
}

// present makes sure that there is a store at path: a new one where there is
// nothing, else a file that looks like one.
func present(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path + walSuffix); err == nil {
			return fmt.Errorf("%w: the file is missing, but its log %s is there", ErrDamaged, path+walSuffix)
		}
		return makeStore(path)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is no file: %s", info.Mode())
	}
	if err := looksRight(path); err != nil {
		return err
	}
	return soundLog(path)
}

// makeStore writes an empty store beside path and gives it its name when it is
// complete: a file of that name is never half made.
func makeStore(path string) error {
	next := path + ".new"
	for _, name := range []string{next, next + walSuffix, next + "-shm"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	db, err := connect(next, readWrite)
	if err != nil {
		return err
	}
	_, err = db.Exec(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err == nil {
		err = migrate(context.Background(), db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("making a new store: %w", explain(err))
	}
	return publish(next, path, "queue.create")
}

// publish syncs the complete file at temp and gives it the name path, which
// must be free. The failpoints are point + .sync, .rename and .dirsync.
func publish(temp, path, point string) error {
	f, err := os.OpenFile(temp, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := atomicfile.SyncFile(f, point+".sync"); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := atomicfile.Rename(dir, filepath.Base(temp), dir, filepath.Base(path), atomicfile.NoReplace, point+".rename"); err != nil {
		return fmt.Errorf("naming %s: %w", path, err)
	}
	return atomicfile.SyncFile(dir, point+".dirsync")
}

// looksRight reads the header of the file at path.
func looksRight(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [100]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return fmt.Errorf("%w: the file is shorter than a header", ErrDamaged)
	}
	const magic = "SQLite format 3\x00"
	if string(head[:len(magic)]) != magic {
		return fmt.Errorf("%w: the file is no SQLite database", ErrDamaged)
	}
	if id := uint32(head[68])<<24 | uint32(head[69])<<16 | uint32(head[70])<<8 | uint32(head[71]); id != applicationID {
		return fmt.Errorf("%w: the file is a database, but not a store of gantry", ErrDamaged)
	}
	return nil
}

// soundLog looks for damage in the log of the store at path.
func soundLog(path string) error {
	f, err := os.Open(path + walSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := readLog(bufio.NewReaderSize(f, 1<<20)); err != nil {
		return fmt.Errorf("looking through %s: %w", f.Name(), err)
	}
	return nil
}

// migrations returns what can bring a schema up to date, and the newest version.
func migrations(db *sql.DB) (*goose.Provider, int64, error) {
	files, err := fs.Sub(schema, "migrations")
	if err != nil {
		return nil, 0, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return nil, 0, err
	}
	sources := p.ListSources()
	return p, sources[len(sources)-1].Version, nil
}

// known refuses a schema that is newer than this program, or none.
func known(ctx context.Context, db *sql.DB) error {
	_, newest, err := migrations(db)
	if err != nil {
		return err
	}
	var have int64
	if err := eachRow(ctx, db, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version", nil, func(scan scanner) error { return scan(&have) }); err != nil {
		return err
	}
	switch {
	case have > newest:
		return fmt.Errorf("%w: its schema is %d, this version knows %d", ErrNewer, have, newest)
	case have < 1:
		return fmt.Errorf("%w: its schema is %d", ErrDamaged, have)
	}
	return nil
}

// migrate brings the schema up to date.
func migrate(ctx context.Context, db *sql.DB) error {
	p, newest, err := migrations(db)
	if err != nil {
		return err
	}
	if have, err := p.GetDBVersion(ctx); err != nil || have == newest {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// tables lists the tables in the order in which Open looks at them.
var tables = []string{"jobs", "attempts", "tasks", "audit", "job_nodes", "samples", "records"}

// glance looks for damage for glanceTime, indexes included: in all of a small
// store, in the jobs of a large one first. Of what it did not come to, rows are
// proved when they are read; a damaged index, which may hide one, is found by Check.
func glance(ctx context.Context, db *sql.DB) error {
	soon, stop := context.WithTimeout(ctx, glanceTime)
	defer stop()
	for _, table := range tables {
		err := pragmaCheck(soon, db, "PRAGMA integrity_check("+table+")")
		if soon.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pragmaCheck runs one of SQLite's checks, which answers ok or what is wrong.
func pragmaCheck(ctx context.Context, db *sql.DB, pragma string) error {
	return eachRow(ctx, db, pragma, nil, func(scan scanner) error {
		var text string
		if err := scan(&text); err != nil || text == "ok" {
			return err
		}
		return fmt.Errorf("%w: %s", ErrDamaged, text)
	})
}
