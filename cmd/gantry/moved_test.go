package main

import (
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

func TestMovedText(t *testing.T) {
	for name, c := range map[string]struct {
		r    api.ImportResult
		want string
	}{
		"file, old copy kept": {
			api.ImportResult{Target: api.TargetReplaced, Digest: "b3:00", Size: 3e9, Seconds: 10, Rate: 3e8, Old: "vm.old-7", Cuts: 1,
				Bytes: api.Bytes{Fetched: 1e9, Reflinked: 1e9, Hole: 1e9}},
			"beta:disks/vm: replaced, 3.0 GB in 10 s, 300.0 MB/s\nb3:00\n  1.0 GB fetched\n  1.0 GB shared with the old copy\n" +
				"  1.0 GB holes and zeros, not sent\n  the old copy is kept as vm.old-7\n  1 connection was cut and resumed\n",
		},
		"dry run of a tree": {
			api.ImportResult{Target: api.TargetReplaced, DryRun: true, Size: 2e3, Bytes: api.Bytes{Fetched: 2e3},
				Entries: &api.Entries{Files: 3, Dirs: 1, Unchanged: 2, Deleted: 5}},
			"beta:disks/vm: would be replaced, 2.0 kB (dry run: nothing was changed)\n  2.0 kB would be fetched\n  3 files, 1 directory\n" +
				"  2 unchanged\n  5 would be deleted: the source does not have them\n",
		},
		"already there": {
			api.ImportResult{Target: api.TargetThere, Digest: "b3:00", Size: 5, Bytes: api.Bytes{Carried: 5}},
			"beta:disks/vm: already there, 5 B\nb3:00\n  5 B compared, nothing moved\n",
		},
		"a name cannot drive the terminal": {
			api.ImportResult{Target: api.TargetReplaced, Old: "\x1b[2J", Entries: &api.Entries{Symlinks: 1, Links: 2, Special: 1, Renamed: 1, Extraneous: 1, Skipped: 1}},
			"beta:disks/vm: replaced, 0 B in 0.0 s, 0 B/s\n  1 symbolic link, 2 further names, 1 special file\n" +
				"  1 found under another name and not fetched\n  1 not in the source, kept\n  1 of the source missing, see above\n  the old copy is kept as \\x1b[2J\n",
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, movedText(&c.r, "beta:disks/vm")) })
	}
}
