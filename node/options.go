package node

import (
	"fmt"
	"slices"
	"strings"

	"gantry/api"
	"gantry/transfer"
)

// checkOptions judges the options of an import, by themselves and together.
func (op *importOp) checkOptions() error {
	create := op.Mode == "" || op.Mode == api.ModeCreate
	switch {
	case !oneOf(op.Extraneous, "", api.ExtraneousKeep, api.ExtraneousList, api.ExtraneousDelete):
		return api.BadRequest.Err("args.extraneous: allowed are keep, list and delete")
	case !oneOf(op.Compress, "", api.CompressAuto, api.CompressOff):
		return api.BadRequest.Err("args.compress: allowed are auto and off")
	case op.Parallel < 0 || op.Parallel > api.MaxParallel:
		return api.BadRequest.Err(fmt.Sprintf("args.parallel: allowed are 1 to %d", api.MaxParallel))
	case create && op.Extraneous == api.ExtraneousDelete:
		return api.BadRequest.Err("args.extraneous delete and args.mode create: what is not there yet has nothing to delete; use mode update or replace")
	case create && op.KeepOld:
		return api.BadRequest.Err("args.keep_old and args.mode create: create leaves what is there alone; use mode replace or update")
	case op.DryRun && op.Resume != "":
		return api.BadRequest.Err("args.dry_run and args.resume: a dry run changes nothing, so it cannot take a stage over")
	}
	return checkShared(op.Checksum, op.TrustMTime, op.Args)
}

// checkOptions judges the options of an export.
func (op *exportOp) checkOptions() error {
	if len(op.Filter) > api.MaxFilter {
		return api.BadRequest.Err(fmt.Sprintf("args.filter: %d rules are the most", api.MaxFilter))
	}
	if _, err := transfer.ParseFilter(op.Filter); err != nil {
		return err
	}
	return checkShared(op.Checksum, op.TrustMTime, op.Args)
}

// checkShared judges what exports and imports both may carry.
func checkShared(checksum, trust bool, args []string) error {
	switch {
	case checksum && trust:
		return api.BadRequest.Err("args.checksum and args.trust_mtime: one reads everything, the other believes what was read before; choose one")
	case len(args) > api.MaxArgs:
		return api.BadRequest.Err(fmt.Sprintf("args.args: %d are the most", api.MaxArgs))
	}
	for i, arg := range args {
		if name, _, ok := strings.Cut(arg, "="); !ok || name == "" || len(arg) > api.MaxArg {
			return api.BadRequest.Err(fmt.Sprintf("args.args[%d]: NAME=VALUE of at most %d bytes is needed", i, api.MaxArg))
		}
	}
	return nil
}

func oneOf(s string, allowed ...string) bool { return slices.Contains(allowed, s) }
