package serve

import (
	"context"
	"errors"
	"net/http"

	"gantry/fastcgi"
	"gantry/feedback"
)

// ErrStopping is the cause with which a program that drains ends its feeds.
var ErrStopping = errors.New("the program is stopping")

// Feed streams f to the reply: replay after `after`, then live, until the final
// is written, the reader leaves, the caller is no longer accepted, or stop
// ends. In all but the first case the reply ends without a final, and its
// reader attaches again.
func Feed(w http.ResponseWriter, r *http.Request, f *feedback.Feed, after int64, hello feedback.Hello, o feedback.WriterOptions, stop context.Context) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(stop, func() { cancel(ErrStopping) })()
	return f.Stream(ctx, feedback.NewWriter(w, o), after, hello)
}

// left reports whether err only says that the reply was not wanted to its end.
func left(err error) bool {
	for _, cause := range []error{fastcgi.ErrClientGone, fastcgi.ErrAborted, fastcgi.ErrServerClosed, ErrStopping, context.Canceled} {
		if errors.Is(err, cause) {
			return true
		}
	}
	return false
}
