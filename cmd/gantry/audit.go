package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"gantry/api"
	"gantry/feedback"

	"github.com/spf13/cobra"
)

func newAuditCommand(e *env) *cobra.Command {
	var after int64
	cmd := &cobra.Command{
		Use: "audit", Short: "Show who asked a master for what, and what it decided",
		Long: "Show who asked a master for what, and what it decided, oldest first. Needs the right audit there.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.audit(cmd, after, func(a *api.AuditEntry) error {
				if e.json {
					return e.printJSON(a)
				}
				line := fmt.Sprintf("%d %s %s: %s %s: %s", a.Seq, a.Time.Local().Format("2006-01-02 15:04:05"), a.Who, a.What, a.Object, a.Decision)
				if a.Reason != "" {
					line += ", " + a.Reason
				}
				_, err := fmt.Fprintln(e.Stdout, feedback.Printable(line))
				return err
			})
		},
	}
	cmd.Flags().Int64Var(&after, "after", 0, "begin after entry `N`")
	cmd.AddCommand(newAuditVerifyCommand(e))
	return cmd
}

func newAuditVerifyCommand(e *env) *cobra.Command {
	var head string
	cmd := &cobra.Command{
		Use: "verify", Short: "Prove that no entry of a master's audit log was changed or cut out",
		Long: "Compute the hashes of a master's audit log again, from its first entry, and print number and hash of the last one.\n" +
			"Keep that line somewhere else: with --head it proves later that nothing before it was changed or cut off.",
		Example: "  gantry audit verify\n  gantry audit verify --head 4711:9f86…",
		Args:    noArgs,
	}
	cmd.Flags().StringVar(&head, "head", "", "`NUMBER:HASH` that an earlier run printed")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var known api.AuditHead
		if head != "" {
			number, hash, _ := strings.Cut(head, ":")
			seq, err := strconv.ParseInt(number, 10, 64)
			if err != nil || seq < 1 || len(hash) != 64 {
				return misused(cmd, "--head wants NUMBER:HASH as gantry audit verify prints it, not %q", head)
			}
			known = api.AuditHead{Seq: seq, Hash: hash}
		}
		var last api.AuditEntry
		err := e.audit(cmd, 0, func(a *api.AuditEntry) error {
			if err := a.Follows(&last); err != nil {
				return &coded{api.ExitFailed, err}
			}
			if a.Seq == known.Seq && a.Hash != known.Hash {
				return &coded{api.ExitFailed, fmt.Errorf("audit entry %d has another hash than --head: it, or one before it, was changed", a.Seq)}
			}
			last = *a
			return nil
		})
		if err != nil {
			return err
		}
		if last.Seq < known.Seq {
			return &coded{api.ExitFailed, fmt.Errorf("the audit log ends with entry %d, before %d of --head: its end was cut off", last.Seq, known.Seq)}
		}
		if e.json {
			return e.printJSON(api.AuditHead{Seq: last.Seq, Hash: last.Hash})
		}
		_, err = fmt.Fprintf(e.Stdout, "%d:%s\n", last.Seq, last.Hash)
		return err
	}
	return cmd
}

// audit hands fn the entries after a number, up to the one that is the last when
// it begins: reading writes entries too.
func (e *env) audit(cmd *cobra.Command, after int64, fn func(*api.AuditEntry) error) error {
	h, err := e.hubAlone(cmd)
	if err != nil {
		return err
	}
	if h == nil {
		return misused(cmd, "the audit log is a master's, and there is none; add [[master]] to cluster.toml, or name one with --master")
	}
	defer h.Close()
	return h.audit(cmd.Context(), after, fn)
}

func (h *hub) audit(ctx context.Context, after int64, fn func(*api.AuditEntry) error) error {
	end := int64(-1)
	for end < 0 || after < end {
		page, err := h.Audit(ctx, after, 0)
		if err != nil {
			return err
		}
		if end < 0 {
			end = page.Last
		}
		if len(page.Entries) == 0 {
			if after < end {
				return fmt.Errorf("master %s says that its audit log goes to entry %d, and has none after %d", h.name, end, after)
			}
			return nil
		}
		for i := range page.Entries {
			a := &page.Entries[i]
			if a.Seq <= after {
				return fmt.Errorf("master %s sent audit entry %d after %d", h.name, a.Seq, after)
			}
			if after = a.Seq; after > end {
				return nil
			}
			if err := fn(a); err != nil {
				return err
			}
		}
	}
	return nil
}
