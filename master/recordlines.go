package master

import (
	"fmt"
	"time"

	"gantry/api"
	"gantry/feedback"
)

// maxRecord is what one record may have: wrapped, it must fit a job's line.
const maxRecord = feedback.MaxTaskLine

// readRecords judges what a driver sends: stored records, numbered upwards.
func readRecords(lines []api.Raw) ([]feedback.Record, error) {
	if len(lines) > api.MaxRecords {
		return nil, api.BadRequest.Err(fmt.Sprintf("records: at most %d are taken at a time", api.MaxRecords))
	}
	bad := func(i int, why string) error {
		return api.BadRequest.Err(fmt.Sprintf("records/%d: %s", i, why))
	}
	records := make([]feedback.Record, 0, len(lines))
	for i, line := range lines {
		if len(line) > maxRecord {
			return nil, bad(i, fmt.Sprintf("is longer than %d bytes", maxRecord))
		}
		rec, err := feedback.Decode(line)
		switch {
		case err != nil:
			return nil, bad(i, "is no record of a feed")
		case !rec.Kind.Stored() || rec.Seq < 1:
			return nil, bad(i, "is no stored record")
		case i > 0 && rec.Seq <= records[i-1].Seq:
			return nil, bad(i, "has a number that is not greater than the one before")
		case i > 0 && records[i-1].Kind.Final():
			return nil, bad(i, "follows a final record")
		case rec.Time.After(time.Now().Add(api.ClockAhead)):
			return nil, bad(i, "is from the future")
		}
		if body, ok := rec.Body.(*feedback.Task); ok {
			if inner, err := feedback.Decode(body.Record); err != nil || inner.Seq < 1 {
				return nil, bad(i, "holds no record of a task")
			}
		}
		records = append(records, rec)
	}
	return records, nil
}

// readItems judges what a driver says of what moves now.
func readItems(lines []api.Raw) ([]feedback.Progress, error) {
	if len(lines) > api.MaxDriverItems {
		return nil, api.BadRequest.Err(fmt.Sprintf("progress: at most %d items are taken at a time", api.MaxDriverItems))
	}
	items := make([]feedback.Progress, 0, len(lines))
	for i, line := range lines {
		rec, err := feedback.Decode(line)
		p, ok := rec.Body.(*feedback.Progress)
		if len(line) > maxRecord || err != nil || !ok {
			return nil, api.BadRequest.Err(fmt.Sprintf("progress/%d: is no progress record", i))
		}
		items = append(items, *p)
	}
	return items, nil
}
