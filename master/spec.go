package master

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"gantry/api"
	"gantry/feedback"
	"gantry/internal/serve"
	"gantry/job"
)

// badSpec is the refusal of one field: where it is, as a JSON pointer into the
// request, and what is allowed there.
func badSpec(pointer, why string, allowed ...string) *feedback.Error {
	e := api.BadSpec.Err(strings.TrimPrefix(pointer, "/") + ": " + why)
	d := map[string]any{"pointer": pointer}
	if len(allowed) > 0 {
		d["allowed"] = allowed
	}
	e.Detail = api.Encode(d)
	return e
}

// readSpec decodes a spec and checks all that does not depend on who asks.
func readSpec(raw api.Raw, cluster string) (spec job.Spec, err error) {
	switch {
	case len(raw) == 0:
		return spec, badSpec("/spec", "is missing")
	case len(raw) > api.MaxSpec:
		return spec, badSpec("/spec", fmt.Sprintf("is larger than %d bytes", api.MaxSpec))
	}
	if err := serve.DecodeJSON(raw, &spec, "spec"); err != nil {
		e := api.BadSpec.Err(serve.Wire(err).Message)
		var place struct {
			Pointer string `json:"pointer"`
		}
		if api.DecodeBytes(serve.Wire(err).Detail, &place) == nil {
			e.Detail = api.Encode(map[string]string{"pointer": "/spec" + place.Pointer})
		}
		return spec, e
	}
	if !slices.Contains(kinds, spec.Kind) {
		return spec, badSpec("/spec/kind", "there is no such kind of job", kinds...)
	}
	if spec.Cluster == "" {
		spec.Cluster = cluster
	}
	if spec.Cluster != cluster {
		return spec, badSpec("/spec/cluster", "this master works for another cluster", cluster)
	}
	if err := spec.Check(); err != nil {
		return spec, badSpec("/spec", err.Error())
	}
	return spec, checkFields(spec)
}

// kinds lists what can be asked for.
var kinds = []string{job.Copy, job.Export, job.Import, job.Digest, job.Verify, job.Call}

// checkFields judges single fields. Nodes judge them again, for their own part:
// a mistake is told here before anything waits in a queue for it.
func checkFields(spec job.Spec) error {
	for _, f := range []struct {
		pointer, value string
		allowed        []string
	}{
		{"/spec/mode", spec.Mode, []string{api.ModeCreate, api.ModeReplace, api.ModeUpdate}},
		{"/spec/verify", spec.Verify, []string{"wire", "disk"}},
		{"/spec/way", spec.Way, []string{job.Pull, job.Push}},
		{"/spec/extraneous", spec.Extraneous, []string{api.ExtraneousKeep, api.ExtraneousList, api.ExtraneousDelete}},
		{"/spec/compress", spec.Compress, []string{api.CompressAuto, api.CompressOff}},
	} {
		if f.value != "" && !slices.Contains(f.allowed, f.value) {
			return badSpec(f.pointer, "is none of the values that it can have", f.allowed...)
		}
	}
	if spec.Call != nil {
		if why := badPath(spec.Call.Args.Path); why != "" {
			return badSpec("/spec/call/args/path", why)
		}
	}
	for pointer, p := range map[string]job.Place{"/spec/from": spec.From, "/spec/to": spec.To} {
		if why := badPath(p.Path); why != "" {
			return badSpec(pointer+"/path", why)
		}
	}
	switch {
	case spec.Kind == job.Copy && spec.From == spec.To:
		return badSpec("/spec/to", "is the source itself")
	case spec.Parallel < 0 || spec.Parallel > api.MaxParallel:
		return badSpec("/spec/parallel", fmt.Sprintf("allowed are 1 to %d", api.MaxParallel))
	case spec.Bandwidth != 0 && (spec.Bandwidth < api.MinBandwidth || spec.Bandwidth > api.MaxBandwidth):
		return badSpec("/spec/bwlimit", fmt.Sprintf("allowed are 0 for none, and %d to %d bytes a second", api.MinBandwidth, int64(api.MaxBandwidth)))
	case len(spec.Filter) > api.MaxFilter:
		return badSpec("/spec/filter", fmt.Sprintf("%d rules are the most", api.MaxFilter))
	case spec.Resume != "" && !api.ValidID(spec.Resume):
		return badSpec("/spec/resume", "is no id of a task")
	}
	for pointer, args := range map[string][]string{"/spec/args": spec.Args, "/spec/target_args": spec.TargetArgs} {
		if len(args) > api.MaxArgs {
			return badSpec(pointer, fmt.Sprintf("%d are the most", api.MaxArgs))
		}
		for i, arg := range args {
			if name, _, ok := strings.Cut(arg, "="); !ok || name == "" || len(arg) > api.MaxArg {
				return badSpec(fmt.Sprintf("%s/%d", pointer, i), fmt.Sprintf("NAME=VALUE of at most %d bytes is needed", api.MaxArg))
			}
		}
	}
	return nil
}

// badPath says why no resource has a path; "" when one may. The node that has
// the resource resolves it, and lets nothing out.
func badPath(p string) string {
	switch {
	case p == "":
		return "" // the whole of the resource
	case len(p) > api.MaxPath:
		return fmt.Sprintf("is longer than %d bytes", api.MaxPath)
	case strings.ContainsRune(p, 0):
		return "contains a NUL"
	case path.IsAbs(p) || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../"):
		return "is not a relative path in its shortest form, inside of the resource"
	case p == ".gantry" || strings.HasPrefix(p, ".gantry/"):
		return "is the folder of stages"
	}
	return ""
}
