package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bounds of the records of trees in one folder.
const (
	maxKnownBytes = 4 << 30
	// keepKnown is how long the records of a tree are kept that nobody uses.
	keepKnown = 90 * 24 * time.Hour
	// keepNew is how long a record may be in the making: what a crash left is older.
	keepNew = 24 * time.Hour
)

// SweepKnown removes records of trees, of exports and of imports, that were not
// used for 90 days or of which there are too many: the least recently used go
// first, until 4 GiB are left. It costs nothing but time to lose one.
func SweepKnown(dir string, now time.Time) error { return sweepKnown(dir, now, maxKnownBytes) }

// knownFile is a file of records.
type knownFile struct {
	path string
	size int64
	used time.Time
}

func sweepKnown(dir string, now time.Time, most int64) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return local(err, "reading the records of trees")
	}
	var files []knownFile
	for _, e := range list {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, knownFile{filepath.Join(dir, e.Name()), info.Size(), info.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b knownFile) int { return b.used.Compare(a.used) })
	for _, f := range files { // the youngest first
		name, keep := filepath.Base(f.path), keepKnown
		if strings.HasPrefix(name, "new.") || strings.HasSuffix(name, newKnown) {
			keep = keepNew
		}
		most -= f.size
		if most >= 0 && now.Sub(f.used) < keep {
			continue
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return local(err, "removing records of trees")
		}
	}
	return nil
}

// newKnown ends the name of a record in the making.
const newKnown = ".new"
