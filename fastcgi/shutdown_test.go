package fastcgi_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"gantry/fastcgi"

	"github.com/stretchr/testify/require"
)

// eager is a connection whose front has the next request ready: it is taken
// while the record that ends the one before is still being written, so that the
// connection is never seen idle.
type eager struct {
	net.Conn
	requests chan<- []byte
	begun    <-chan struct{}
}

func (c *eager) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if bytes.Contains(p, []byte{1, end, 0, 1, 0, 8, 0, 0}) {
		c.requests <- request(1, keepConn, cgi())
		select {
		case <-c.begun:
		case <-time.After(time.Second): // not taken
		}
	}
	return n, err
}

// TestShutdownUnderSteadyLoad: a front that always has one more request for its
// kept connection cannot keep Shutdown waiting.
func TestShutdownUnderSteadyLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		requests, begun := make(chan []byte, 1), make(chan struct{})
		go func() {
			for b := range requests {
				_, _ = far.Write(b)
			}
		}()
		atWork, goOn := make(chan struct{}), make(chan struct{})
		served := 0 // by one handler at a time
		srv := &fastcgi.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if served++; served > 1 {
				begun <- struct{}{}
			}
			if served == 3 {
				close(atWork)
				<-goOn
			}
			if served == 10 {
				far.Close()
			}
			ok(w, r)
		})}
		requests <- request(1, keepConn, cgi())
		go srv.ServeConn(&eager{near, requests, begun})
		<-atWork
		stopped := make(chan error, 1)
		go func() { stopped <- srv.Shutdown(context.Background()) }()
		synctest.Wait()
		close(goOn)
		require.NoError(t, <-stopped)
		require.Equal(t, 3, served, "the request under way was the last one")
		close(requests)
		far.Close()
	})
}

// TestShutdownMeetsNewConnection: a connection that is just being admitted has
// no more time than one that was there.
func TestShutdownMeetsNewConnection(t *testing.T) {
	admitted, goOn := make(chan struct{}), make(chan struct{})
	srv := &fastcgi.Server{
		Limits: fastcgi.Limits{HeaderTimeout: time.Hour},
		AllowPeer: func(fastcgi.Peer) bool {
			close(admitted)
			<-goOn
			return true
		},
	}
	dial, served := start(t, srv)
	dial()
	receive(t, admitted)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Shutdown(ctx) }()
	require.ErrorIs(t, receive(t, served), fastcgi.ErrServerClosed)
	require.Eventually(t, srv.Draining, patience, time.Millisecond)
	close(goOn)
	require.NoError(t, <-stopped)
}

// TestCutBodyIsNotWhole: what arrives after the request was ended is dropped,
// and the end of the body must not hide that.
func TestCutBodyIsNotWhole(t *testing.T) {
	type result struct {
		n   int
		err error
	}
	arrived, results := make(chan struct{}), make(chan result, 1)
	s := handle(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		<-arrived
		b, err := io.ReadAll(r.Body)
		results <- result{len(b), err}
	})
	f := s.dial(t)
	f.send(head(1, 0, cgi("CONTENT_LENGTH", "50")),
		rec(stdin, 1, make([]byte, 10), 0), rec(abort, 1, nil, 0), rec(stdin, 1, make([]byte, 40), 0), rec(stdin, 1, nil, 0),
		rec(getValues, 0, nil, 0))
	f.want(getValuesResult, 0) // so everything before it was taken
	close(arrived)
	res := receive(t, results)
	require.Equal(t, 10, res.n)
	require.ErrorIs(t, res.err, io.ErrUnexpectedEOF)
	require.ErrorIs(t, res.err, fastcgi.ErrAborted)
}
