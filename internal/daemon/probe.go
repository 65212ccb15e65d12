package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"gantry/feedback"
	"gantry/internal/serve"

	"github.com/yookoala/gofast"
)

// probeTime bounds a probe as a whole; a healthy responder takes a millisecond.
const probeTime = 5 * time.Second

// Probe asks the responder on a socket for its health. It works as the
// responder's own user and as the front's.
func Probe(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("connecting to the responder: %w; is it running?", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// The client of gofast knows no deadlines: the socket has one instead.
	if err := conn.SetDeadline(time.Now().Add(probeTime)); err != nil {
		return fmt.Errorf("connecting to the responder: %w", err)
	}
	return ask(conn)
}

func ask(conn net.Conn) error {
	newClient := gofast.SimpleClientFactory(func() (net.Conn, error) { return conn, nil })
	client, err := newClient()
	if err != nil {
		return fmt.Errorf("connecting to the responder: %w", err)
	}
	defer client.Close()
	request := gofast.NewRequest(nil)
	request.Params = map[string]string{
		"REQUEST_METHOD": http.MethodGet, "REQUEST_URI": serve.HealthPath, "SCRIPT_NAME": serve.HealthPath,
		"SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": "0",
	}
	pipe, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("asking the responder: %w", err)
	}
	reply := &answer{header: http.Header{}}
	const hint = "is this user one of [front] uids, or the responder's own?"
	if err := pipe.WriteTo(reply, io.Discard); err != nil { // the client's word for a connection that was closed at once
		return fmt.Errorf("the responder gave no whole answer: %w; %s", err, hint)
	}
	switch reply.status {
	case http.StatusOK:
		return nil
	case 0:
		return errors.New("the responder gave no answer; " + hint)
	}
	return fmt.Errorf("the responder is not healthy: HTTP %d: %s", reply.status, feedback.Printable(strings.TrimSpace(string(reply.body))))
}

// answer keeps a reply.
type answer struct {
	header http.Header
	status int
	body   []byte
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { a.body = append(a.body, p...); return len(p), nil }
