package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"gantry/api"
	"gantry/config"
	"gantry/job"
	"gantry/transfer"

	"github.com/spf13/cobra"
)

// moving is the flags of what moves bytes. Whether a node can do what they say
// is the node's to judge; what cannot be meant is refused here.
type moving struct {
	fresh, replace, update bool
	delete                 bool
	extraneous             choice
	compress, verify       choice
	limit                  rate
	expect                 string
	resume                 string
	o                      job.Options
}

// flags adds the flags that every command which moves bytes has.
func (m *moving) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&m.replace, "replace", false, "replace a target that exists; the old one stays until the new one is complete")
	f.BoolVar(&m.fresh, "new", false, "start afresh, even if the same command has an unfinished job")
	f.StringVar(&m.expect, "expect", "", "publish only content with this `digest` (b3:…, as gantry digest and b3sum print it)")
	m.verify = choice{allowed: []string{transfer.VerifyWire, transfer.VerifyDisk}}
	f.Var(&m.verify, "verify", "when bytes are proved: `wire` (before they are written), or disk (and read back before publishing)")
	f.BoolVarP(&m.o.Checksum, "checksum", "c", false, "read everything; believe neither times nor recorded digests")
	f.BoolVar(&m.o.TrustMTime, "trust-mtime", false, "believe recorded digests of files whose inode, size and times are unchanged")
	f.Var(rules{&m.o.Filter, "+ "}, "include", "take entries that match `PATTERN`, as rsync does; the order of these three counts")
	f.Var(rules{&m.o.Filter, "- "}, "exclude", "leave out entries that match `PATTERN`")
	f.Var(rules{&m.o.Filter, ""}, "filter", "a `RULE` as rsync writes it, such as '- *.tmp'")
	f.Var(&m.limit, "bwlimit", "move at most `RATE` a second, such as 10M or 500K")
	f.Var(arguments{&m.o.Args}, "arg", "`NAME=VALUE` of a placeholder of the source's command; again for more")
}

// targetFlags adds the flags of what a node's import can do and this process
// cannot.
func (m *moving) targetFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&m.update, "update", false, "bring the target up to date, whether it exists or not; what it has is not moved again")
	f.BoolVar(&m.o.KeepOld, "keep-old", false, "keep the old copy beside the target, as NAME.old-TASK")
	f.BoolVarP(&m.o.DryRun, "dry-run", "n", false, "say what would be done and change nothing")
	f.BoolVar(&m.delete, "delete", false, "remove what the source does not have, as --extraneous delete")
	m.extraneous = choice{allowed: []string{api.ExtraneousKeep, api.ExtraneousList, api.ExtraneousDelete}}
	f.Var(&m.extraneous, "extraneous", "what to do with entries that the source does not have: `keep`, list or delete")
	f.IntVar(&m.o.Parallel, "parallel", 0, fmt.Sprintf("`N` connections, 1 to %d (default %d)", api.MaxParallel, api.DefaultParallel))
	m.compress = choice{allowed: []string{api.CompressAuto, api.CompressOff}}
	f.VarP(&m.compress, "compress", "z", "`auto` (default): compress where a sample says that it pays, or off")
	f.Var(arguments{&m.o.TargetArgs}, "target-arg", "`NAME=VALUE` of a placeholder of the target's command; again for more")
	f.StringVar(&m.resume, "resume", "", "take over what the failed import `TASK` had brought to the same target")
}

// spec is the job that the flags ask for.
func (m *moving) spec(cmd *cobra.Command, kind string) (job.Spec, error) {
	if err := m.check(cmd); err != nil {
		return job.Spec{}, err
	}
	s := job.Spec{Kind: kind, Mode: api.ModeCreate, Expect: m.expect, Verify: m.verify.value, Resume: m.resume, Options: m.o}
	switch {
	case m.replace:
		s.Mode = api.ModeReplace
	case m.update:
		s.Mode = api.ModeUpdate
	}
	s.Bandwidth, s.Compress, s.Extraneous = int64(m.limit), m.compress.value, m.extraneous.value
	if m.delete {
		s.Extraneous = api.ExtraneousDelete
	}
	return s, nil
}

// check refuses combinations that contradict themselves.
func (m *moving) check(cmd *cobra.Command) error {
	deletes := m.delete || m.extraneous.value == api.ExtraneousDelete
	changes := m.replace || m.update
	switch {
	case !checkExpect(m.expect):
		return misused(cmd, "--expect wants b3: and 64 lower-case hex digits, not %q", m.expect)
	case m.resume != "" && !api.ValidID(m.resume):
		return misused(cmd, "--resume wants a task's id, not %q; the feed of the failed job has it", m.resume)
	case m.replace && m.update:
		return misused(cmd, "--replace and --update are two modes; choose one")
	case m.o.Checksum && m.o.TrustMTime:
		return misused(cmd, "--checksum reads everything, --trust-mtime believes what was read before; choose one")
	case m.delete && m.extraneous.value != "" && m.extraneous.value != api.ExtraneousDelete:
		return misused(cmd, "--delete and --extraneous %s contradict each other", m.extraneous.value)
	case deletes && !changes:
		return misused(cmd, "--delete needs --update or --replace: what is not there yet has nothing to delete")
	case m.o.KeepOld && !changes:
		return misused(cmd, "--keep-old needs --replace or --update: without them the old copy is left alone")
	case m.o.Parallel < 0 || m.o.Parallel > api.MaxParallel || m.o.Parallel == 0 && cmd.Flags().Changed("parallel"):
		return misused(cmd, "--parallel wants 1 to %d", api.MaxParallel)
	case len(m.o.Filter) > api.MaxFilter:
		return misused(cmd, "%d rules of --include, --exclude and --filter are the most", api.MaxFilter)
	case m.resume != "" && m.o.DryRun:
		return misused(cmd, "--dry-run changes nothing, so it cannot --resume")
	}
	return nil
}

// choice is a flag with a closed set of values.
type choice struct {
	value   string
	allowed []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return "word" }

// Set accepts an allowed value and names the nearest to any other.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("allowed are %s%s", strings.Join(c.allowed, ", "), near(s, c.allowed))
	}
	c.value = s
	return nil
}

// rate is a bandwidth limit in bytes a second.
type rate int64

func (r *rate) String() string { return "" }
func (r *rate) Type() string   { return "RATE" }

// Set reads "10M", "1.5m", "500KiB/s", or 0 for none.
func (r *rate) Set(s string) error {
	n, err := config.ParseRate(s)
	if err != nil {
		return fmt.Errorf("%w; allowed: %s", err, config.RateAllowed)
	}
	*r = rate(n)
	return nil
}

// rules appends a filter rule; the flags that share the list keep their order.
type rules struct {
	list   *[]string
	prefix string
}

func (r rules) String() string { return "" }
func (r rules) Type() string   { return "PATTERN" }

// Set appends the rule.
func (r rules) Set(s string) error {
	if s == "" || len(s) > api.MaxArg-len(r.prefix) || !utf8.ValidString(s) {
		return fmt.Errorf("a rule has 1 to %d bytes of UTF-8", api.MaxArg)
	}
	*r.list = append(*r.list, r.prefix+s)
	return nil
}

// arguments appends NAME=VALUE.
type arguments struct{ list *[]string }

func (a arguments) String() string { return "" }
func (a arguments) Type() string   { return "NAME=VALUE" }

// Set appends the argument.
func (a arguments) Set(s string) error {
	name, _, ok := strings.Cut(s, "=")
	switch {
	case !ok || name == "":
		return errors.New("write NAME=VALUE, such as db=mail")
	case len(s) > api.MaxArg || !utf8.ValidString(s):
		return fmt.Errorf("at most %d bytes of UTF-8", api.MaxArg)
	case len(*a.list) == api.MaxArgs:
		return fmt.Errorf("%d are the most", api.MaxArgs)
	case slices.ContainsFunc(*a.list, func(other string) bool { return strings.HasPrefix(other, name+"=") }):
		return fmt.Errorf("%s is given twice", name)
	}
	*a.list = append(*a.list, s)
	return nil
}
