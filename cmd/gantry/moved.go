package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"gantry/api"
	"gantry/feedback"
	"gantry/progress"

	"github.com/go-json-experiment/json"
)

// printMoved says what a copy, an import or an export did.
func (e *env) printMoved(final feedback.Record, target string) error {
	var r api.ImportResult
	if err := e.result(final, &r); err != nil || e.json || e.quiet {
		return err
	}
	_, err := fmt.Fprint(e.Stdout, movedText(&r, target))
	return err
}

// printIncomplete says what is in place although err, which it returns, says
// that not all of it is: that part is of use, and the exit code tells the rest.
func (e *env) printIncomplete(err error, target string) error {
	wire, ok := errors.AsType[*feedback.Error](err)
	if !ok || wire.Code != api.Incomplete.Name || e.json || e.quiet {
		return err
	}
	var r api.ImportResult
	if json.Unmarshal(wire.Detail, &r) == nil && r.Digest != "" {
		fmt.Fprint(e.Stdout, movedText(&r, target))
	}
	return err
}

// movedText describes a result for people. Of a dry run it says what would be.
func movedText(r *api.ImportResult, target string) string {
	target = feedback.Printable(target)
	var b strings.Builder
	switch {
	case r.DryRun:
		fmt.Fprintf(&b, "%s: %s, %s (dry run: nothing was changed)\n", target, wouldBe(r.Target), progress.Bytes(r.Size))
	case r.Target == api.TargetThere:
		fmt.Fprintf(&b, "%s: %s, %s\n", target, r.Target, progress.Bytes(r.Size))
	default:
		took := time.Duration(r.Seconds * float64(time.Second))
		fmt.Fprintf(&b, "%s: %s, %s in %s, %s\n", target, r.Target, progress.Bytes(r.Size), progress.Duration(took), progress.Rate(r.Rate))
	}
	if r.Digest != "" {
		fmt.Fprintln(&b, feedback.Printable(r.Digest))
	}
	b.WriteString(originText(r))
	if r.Entries != nil {
		b.WriteString(entriesText(r.Entries, r.DryRun))
	}
	if r.Old != "" {
		fmt.Fprintf(&b, "  the old copy is kept as %s\n", feedback.Printable(r.Old))
	}
	if r.Cuts > 0 {
		fmt.Fprintf(&b, "  %s cut and resumed\n", plural(r.Cuts, "connection was", "connections were"))
	}
	return b.String()
}

// wouldBe is the conditional of what happened to a target.
func wouldBe(target string) string {
	switch target {
	case api.TargetThere:
		return target
	case "":
		return "would be copied"
	}
	return "would be " + target
}

// originText is where the bytes came from.
func originText(r *api.ImportResult) string {
	fetched, copied, shared := "fetched", "copied from the old copy", "shared with the old copy"
	carried := "in place already, not sent"
	hole := "holes and zeros, not sent"
	if r.Target == api.TargetThere {
		carried = "compared, nothing moved"
	}
	if r.DryRun {
		fetched, copied, shared = "would be fetched", "would be copied from the old copy", "would be shared with the old copy"
		hole = "would be holes and zeros, not sent"
	}
	var b strings.Builder
	for _, part := range []struct {
		n    int64
		what string
	}{
		{r.Bytes.Fetched, fetched}, {r.Bytes.Carried, carried}, {r.Bytes.Copied, copied}, {r.Bytes.Reflinked, shared}, {r.Bytes.Hole, hole},
	} {
		if part.n > 0 {
			fmt.Fprintf(&b, "  %s %s\n", progress.Bytes(part.n), part.what)
		}
	}
	return b.String()
}

// entriesText is what became of a tree's entries.
func entriesText(n *api.Entries, dry bool) string {
	var kinds []string
	count := func(n int64, one, many string) {
		if n > 0 {
			kinds = append(kinds, plural(n, one, many))
		}
	}
	count(n.Files, "file", "files")
	count(n.Dirs, "directory", "directories")
	count(n.Symlinks, "symbolic link", "symbolic links")
	count(n.Links, "further name", "further names")
	count(n.Special, "special file", "special files")
	var b strings.Builder
	if len(kinds) > 0 {
		fmt.Fprintf(&b, "  %s\n", strings.Join(kinds, ", "))
	}
	would := ""
	if dry {
		would = "would be "
	}
	for _, part := range []struct {
		n    int64
		what string
	}{
		{n.Unchanged, "unchanged"}, {n.Renamed, would + "found under another name and not fetched"},
		{n.Deleted, would + "deleted: the source does not have them"},
		{n.Extraneous, "not in the source, kept"}, {n.LeftOut, "of the source left out: special files and other file systems"},
		{n.Skipped, "of the source missing, see above"},
	} {
		if part.n > 0 {
			fmt.Fprintf(&b, "  %d %s\n", part.n, part.what)
		}
	}
	return b.String()
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
