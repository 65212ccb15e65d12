package front

import (
	"context"
	"crypto/tls"
)

// Check is one line of CheckURL's answer.
type Check struct {
	Name   string // short and stable, for scripts: "tls", "lines", …
	OK     bool
	Text   string // one sentence: what was found
	Detail string // numbers behind it; may be empty
}

func CheckURL(ctx context.Context, url string, conf *tls.Config) []Check { return nil }
