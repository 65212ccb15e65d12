package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Backup writes a copy of the store as it is now to a new file at to, while
// everything goes on. The file is complete, checked and on disk when it gets its name.
func (s *Store) Backup(ctx context.Context, to string) error {
	return BackupFile(ctx, s.path, to)
}

// BackupFile is Backup for another process than the one that has the store at
// path open; it need not be open at all.
func BackupFile(ctx context.Context, path, to string) error {
	if err := copyStore(ctx, path, to, "queue.backup"); err != nil {
		return fmt.Errorf("backing up %s to %s: %w", path, to, err)
	}
	return nil
}

// withFile opens the store at path, which it does not change.
func withFile(path string, m mode, fn func(*sql.DB) error) error {
	if err := looksRight(path); err != nil {
		return err
	}
	if idle(path) { // a log that grows cannot be judged from outside
		if err := soundLog(path); err != nil {
			return err
		}
	}
	db, err := connect(path, m)
	if err != nil {
		return err
	}
	if err = known(context.Background(), db); err == nil {
		err = fn(db)
	}
	return explain(errors.Join(err, db.Close()))
}

// copyStore writes what the store at path holds to a new file.
func copyStore(ctx context.Context, path, to, point string) (err error) {
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("there is a file of that name already: %w", fs.ErrExist)
	}
	f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
	if err != nil {
		return err
	}
	temp := f.Name()
	defer os.Remove(temp) // unless it got its name
	if err := f.Close(); err != nil {
		return err
	}
	err = withFile(path, copyOnly, func(db *sql.DB) error {
		_, err := db.ExecContext(ctx, "VACUUM INTO ?", temp)
		return err
	})
	if err != nil {
		return err
	}
	if err := CheckFile(ctx, temp); err != nil {
		return err
	}
	return publish(temp, to, point)
}

// Restore puts a copy of the backup at from in the place of the store at to,
// which nobody may have open. What was there before is kept beside it, and its
// new name returned; "" if there was nothing.
func Restore(ctx context.Context, from, to string) (kept string, err error) {
	kept, err = restore(ctx, from, to)
	if err != nil {
		return kept, fmt.Errorf("restoring %s from %s: %w", to, from, err)
	}
	return kept, nil
}

func restore(ctx context.Context, from, to string) (kept string, err error) {
	if err := CheckFile(ctx, from); err != nil {
		return "", err
	}
	held, err := lock(to)
	if err != nil {
		return "", err
	}
	defer held.Close()
	next := fmt.Sprintf("%s.restored-%d", to, os.Getpid())
	if err := copyStore(ctx, from, next, "queue.copy"); err != nil {
		return "", err
	}
	defer os.Remove(next) // unless it got its name
	if kept, err = setAside(to); err != nil {
		return kept, err
	}
	return kept, publish(next, to, "queue.restore")
}

// setAside gives the store at path and its log another name. The log must not
// stay: SQLite would apply it to whatever file has the name next.
func setAside(path string) (kept string, err error) {
	old := path + ".old-" + time.Now().UTC().Format("20060102T150405.000")
	for _, suffix := range []string{"", walSuffix} {
		err := os.Rename(path+suffix, old+suffix)
		switch {
		case err == nil:
			kept = old
		case !errors.Is(err, fs.ErrNotExist):
			return kept, err
		}
	}
	if err := os.Remove(path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return kept, err
	}
	return kept, nil
}

// Check goes through the whole store: its structure, its indexes, every row and
// the audit log. It takes as long as reading the file, some seconds per GiB, and
// holds nobody up.
func (s *Store) Check(ctx context.Context) error {
	err := check(ctx, s.reads)
	if errors.Is(err, ErrDamaged) {
		return s.fail(err)
	}
	if err != nil {
		return fmt.Errorf("checking the store: %w", err)
	}
	return nil
}

// CheckFile is Check for a file that is not open here. It may be open elsewhere.
func CheckFile(ctx context.Context, path string) error {
	if err := withFile(path, readOnly, func(db *sql.DB) error { return check(ctx, db) }); err != nil {
		return fmt.Errorf("checking %s: %w", path, err)
	}
	return nil
}

func check(ctx context.Context, db *sql.DB) error {
	orphan := fmt.Errorf("%w: a row belongs to a job that is not there", ErrDamaged)
	if err := pragmaCheck(ctx, db, "PRAGMA integrity_check"); err != nil {
		return err
	}
	if err := eachRow(ctx, db, "PRAGMA foreign_key_check", nil, func(scan scanner) error {
		return orphan
	}); err != nil {
		return err
	}
	if err := eachRow(ctx, db, "SELECT place FROM records WHERE place / 4294967296 NOT IN (SELECT n FROM jobs) LIMIT 1", nil, func(scanner) error {
		return orphan
	}); err != nil {
		return err
	}
	for _, part := range []struct {
		query string
		row   func(scanner) error
	}{
		{selectJob + "1 = 1", func(scan scanner) error { _, err := scanJob(scan); return err }},
		{selectAttempts + "1 = 1", func(scan scanner) error { _, err := scanAttempt(scan); return err }},
		{selectRecords + "1 = 1", func(scan scanner) error { _, err := scanRecord(scan); return err }},
	} {
		if err := eachRow(ctx, db, part.query, nil, part.row); err != nil {
			return err
		}
	}
	_, err := verifyAudit(ctx, db)
	return err
}
