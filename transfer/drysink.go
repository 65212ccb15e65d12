package transfer

import (
	"context"

	"gantry/api"
)

// drySink is the sink of a dry run: it changes nothing. What the old copy has is
// read and hashed, what differs is asked for by the values of its parts.
type drySink struct {
	*fileSink
	there bool
}

func (drySink) begin(File) error                          { return nil }
func (drySink) has(part) (bool, error)                    { return false, nil }
func (drySink) read(part, []byte) (bool, error)           { return false, nil }
func (drySink) clear(context.Context, part) error         { return nil }
func (drySink) write(context.Context, part, []byte) error { return nil }
func (drySink) note(part) error                           { return nil }
func (drySink) checkpoint() error                         { return nil }
func (drySink) failed(err error) error                    { return err }
func (drySink) earlier() counters                         { return counters{} }
func (drySink) carried() bool                             { return false }

// share says of a clone that nobody makes whether it could be one.
func (drySink) share(*oldCopy, part) bool { return false }

func (d drySink) finish(context.Context) (api.ImportResult, error) {
	target := api.TargetCreated
	if d.there {
		target = api.TargetReplaced
	}
	result := d.result(target)
	result.DryRun = true
	return result, nil
}
