package queue

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors that callers branch on.
var (
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("another process has the store open")
	// ErrDamaged: the file is not what this package wrote.
	ErrDamaged = errors.New("the store is damaged; restore the last backup (masterd restore)")
	// ErrAudit: the audit log is not what was written. Its text names the entry.
	ErrAudit = errors.New("the audit log is not what was written")
	// ErrNewer: a newer version has written the file.
	ErrNewer = errors.New("the store was written by a newer version; use that version, or restore a backup of this one")
	// ErrBroken: a commit failed earlier. The process must open the store afresh.
	ErrBroken = errors.New("the store cannot be written any more")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrNotFound: there is no such job.
	ErrNotFound = errors.New("there is no such job")
	// ErrKeyReused: the owner has used the idempotency key with another body.
	ErrKeyReused = errors.New("the idempotency key was used with another request")
	// ErrEnded: the job has ended; its outcome does not change.
	ErrEnded = errors.New("the job has ended")
	// ErrBadJob: a job that cannot be stored. Its text says why.
	ErrBadJob = errors.New("not a job that can be stored")
	// ErrCursor: a cursor that no page has given.
	ErrCursor = errors.New("not a cursor of this list")
)

// explain says in words of ours what SQLite said, where there are some.
func explain(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR:
		// The last: a statement does not fit the schema. All statements are
		// constants, so the schema is not the one that was written.
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("the disk is full: make room where the store is: %w", err)
	case sqlite3.SQLITE_READONLY:
		return fmt.Errorf("the file system is read-only, or the file belongs to another user: %w", err)
	}
	return err
}
