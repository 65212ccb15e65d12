package config

import (
	"path/filepath"
	"strings"
	"time"
)

// Freeze says how an export of a resource gets a source that does not change.
type Freeze struct {
	Reflink  bool          // the file is cloned where the file system can (FICLONE)
	Snapshot []string      // argv that makes a snapshot and prints its path; empty: none
	Release  []string      // argv that removes it; with Snapshot only
	Timeout  time.Duration // of one run of either
}

// Bounds of hooks.
const (
	// DefaultHookTimeout is ample for a snapshot, which freezes and does not copy.
	DefaultHookTimeout = 2 * time.Minute
	// maxHookTimeout: a reader waits for no longer.
	maxHookTimeout = 30 * time.Minute
	// maxArguments of a hook.
	maxArguments = 64
)

// snapshotReflink as value of "snapshot" means Freeze.Reflink.
const snapshotReflink = "reflink"

const (
	snapshotAllowed = `"reflink", or the absolute path of a program and its arguments`
	snapshotExample = `snapshot = ["/usr/local/sbin/snap", "create"]`
	releaseAllowed  = "the absolute path of a program and its arguments"
	releaseExample  = `release = ["/usr/local/sbin/snap", "remove"]`
)

// readFreeze reads snapshot, release and hook_timeout of a resource; nil
// without them.
func readFreeze(t *table, kind string) *Freeze {
	f := &Freeze{Timeout: t.duration("hook_timeout", DefaultHookTimeout, maxHookTimeout)}
	_, snapshot := t.m["snapshot"]
	_, release := t.m["release"]
	_, timeout := t.m["hook_timeout"]
	if t.m["snapshot"] == snapshotReflink {
		t.value("snapshot")
		f.Reflink = true
		if kind != KindFiles {
			t.problem("snapshot", releaseAllowed, snapshotExample, `"reflink" clones one file, and a resource of kind %s has more than that`, kind)
		}
	} else {
		f.Snapshot = t.argv("snapshot", snapshotAllowed, snapshotExample)
	}
	f.Release = t.argv("release", releaseAllowed, releaseExample)
	switch {
	case snapshot && kind == KindCommand:
		t.problem("snapshot", "", "", "freezes what lies on a disk; a command brings its own data")
	case f.Reflink && release:
		t.problem("release", "", "", "stands beside snapshot = \"reflink\", whose clone needs no hook to be removed")
	case snapshot && !f.Reflink && !release:
		t.problem("release", releaseAllowed, releaseExample, "is missing: a snapshot that nothing removes fills the disk")
	case release && !snapshot:
		t.problem("snapshot", snapshotAllowed, snapshotExample, "is missing: release removes what it made")
	case timeout && !snapshot:
		t.problem("hook_timeout", "", "", "is of no use without snapshot")
	}
	if !snapshot {
		return nil
	}
	return f
}

// argv takes a program and its arguments; nil when there are none.
func (t *table) argv(key, allowed, example string) []string {
	list, ok := typed[[]any](t, key, allowed, example)
	if !ok {
		return nil
	}
	if len(list) == 0 || len(list) > maxArguments {
		t.problem(key, allowed, example, "has %d elements, 1 to %d are possible", len(list), maxArguments)
		return nil
	}
	var argv []string
	for i, v := range list {
		s, ok := v.(string)
		switch {
		case !ok:
			t.problem(indexed(key, i), allowed, example, "is %s", kindOf(v))
		case strings.Contains(s, "\x00"):
			t.problem(indexed(key, i), allowed, example, "contains a NUL")
		case i == 0 && (!strings.HasPrefix(s, "/") || filepath.Clean(s) != s || s == "/"):
			t.problem(indexed(key, i), allowed, example, "%q is not the absolute path of a program: no shell looks for it", s)
		}
		argv = append(argv, s)
	}
	return argv
}
