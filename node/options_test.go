package node

import (
	"strings"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

func goodImport() importOp {
	return importOp{api.ImportArgs{
		File: api.File{Resource: "disks", Path: "a"}, Mode: api.ModeReplace,
		Source: api.Source{Node: "alpha", Task: api.NewID(), Ticket: strings.Repeat("0", 64)},
	}}
}

// TestImportOptions: what is not allowed is refused by name, contradictions naming
// both.
func TestImportOptions(t *testing.T) {
	op := goodImport()
	require.NoError(t, op.check())
	for name, c := range map[string]struct {
		change func(*importOp)
		want   string // in the refusal; "" is allowed
	}{
		"mode":       {func(op *importOp) { op.Mode = "overwrite" }, "allowed are create, replace and update"},
		"extraneous": {func(op *importOp) { op.Extraneous = "burn" }, "args.extraneous"},
		"compress":   {func(op *importOp) { op.Compress = "gzip" }, "allowed are auto and off"},
		"parallel":   {func(op *importOp) { op.Parallel = 17 }, "args.parallel"},
		"negative":   {func(op *importOp) { op.Parallel = -1 }, "args.parallel"},
		"slow":       {func(op *importOp) { op.Bandwidth = 1 }, "args.bwlimit"},
		"both":       {func(op *importOp) { op.Checksum, op.TrustMTime = true, true }, "args.trust_mtime"},
		"delete":     {func(op *importOp) { op.Mode, op.Extraneous = "", api.ExtraneousDelete }, "args.extraneous"},
		"keep":       {func(op *importOp) { op.Mode, op.KeepOld = "", true }, "args.keep_old"},
		"dry":        {func(op *importOp) { op.DryRun, op.Resume = true, api.NewID() }, "args.dry_run"},
		"args":       {func(op *importOp) { op.Args = []string{"db"} }, "args.args"},
		"many args":  {func(op *importOp) { op.Args = make([]string, api.MaxArgs+1) }, "args.args"},
		"off":        {func(op *importOp) { op.Compress = api.CompressOff }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			op := goodImport()
			c.change(&op)
			err := op.check()
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.True(t, isCode(err, api.BadRequest))
		})
	}
}

func TestExportOptions(t *testing.T) {
	for name, c := range map[string]struct {
		args api.ExportArgs
		want string
	}{
		"rule":  {api.ExportArgs{Filter: []string{""}}, "args.filter"},
		"rules": {api.ExportArgs{Filter: make([]string, api.MaxFilter+1)}, "args.filter"},
		"slow":  {api.ExportArgs{Bandwidth: -5}, "args.bwlimit"},
		"both":  {api.ExportArgs{Checksum: true, TrustMTime: true}, "args.trust_mtime"},
		"args":  {api.ExportArgs{Args: []string{"=x"}}, "args.args"},
	} {
		t.Run(name, func(t *testing.T) {
			c.args.File = api.File{Resource: "disks", Path: "a"}
			err := (&exportOp{c.args}).check()
			require.ErrorContains(t, err, c.want)
			require.True(t, isCode(err, api.BadRequest))
		})
	}
}

// TestRightOfImport: deleting needs no less than replacing.
func TestRightOfImport(t *testing.T) {
	for want, args := range map[api.Right]api.ImportArgs{
		api.MayCreate:  {},
		api.MayReplace: {Mode: api.ModeUpdate, Extraneous: api.ExtraneousDelete},
		api.MayUpdate:  {Mode: api.ModeUpdate, Extraneous: api.ExtraneousList},
	} {
		require.Equal(t, want, (&importOp{args}).right())
	}
	require.Equal(t, api.MayReplace, (&importOp{api.ImportArgs{Mode: api.ModeReplace}}).right())
}
