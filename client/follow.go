package client

import (
	"context"
	"errors"

	"gantry/api"
	"gantry/feedback"
)

// A Run is what Follow starts or goes on with.
type Run struct {
	// Request starts the task; nil: it was started before, ID names it.
	Request *api.TaskRequest
	ID      string
}

// Follow is written below.
func (c *Client) Follow(ctx context.Context, run Run, fn func(feedback.Record) error) (feedback.Record, error) {
	return feedback.Record{}, errors.New("not written yet")
}
