package front

import (
	"context"
	"crypto/tls"
	"errors"
)

func Render(k Kind, o Options) (string, error)         { return "", errors.New("not written yet") }
func RenderToken(k Kind, token string) (string, error) { return "", errors.New("not written yet") }
func Prepare(o Options, uid, gid int) error            { return errors.New("not written yet") }
func Command(k Kind, conf string, o Options) []string  { return nil }
func CheckConfig(ctx context.Context, k Kind, conf string, o Options) error {
	return errors.New("not written yet")
}
func Reload(k Kind, pid int) error                  { return errors.New("not written yet") }
func Embedded(ctx context.Context, o Options) error { return errors.New("not written yet") }

// Check is one line of CheckURL's answer.
type Check struct {
	Name   string // short and stable, for scripts: "tls", "lines", …
	OK     bool
	Text   string // one sentence: what was found
	Detail string // numbers behind it; may be empty
}

func CheckURL(ctx context.Context, url string, conf *tls.Config) []Check { return nil }
