package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"gantry/access"
	"gantry/api"

	"golang.org/x/sys/unix"
)

// Bounds of a local connection. Whoever trickles a request holds one of its few
// connections, and no longer than this.
const (
	localHeader = 10 * time.Second
	localIdle   = 75 * time.Second
	maxHeader   = 64 << 10
)

// Variables for tests: how long a body may take to come, and a write to be taken.
var (
	localBody  = 30 * time.Second
	localWrite = 2 * time.Minute
)

// overflowUID is what the kernel shows for users whom it cannot name in this
// namespace: it is no one in particular, so it is nobody.
const overflowUID = 65534

// A localPeer is the process at the other end of a local connection.
type localPeer struct {
	who access.Local
	err error // why it may not ask
}

type localKey struct{}

func localFrom(ctx context.Context) *localPeer {
	p, _ := ctx.Value(localKey{}).(*localPeer)
	return p
}

// LocalServer is an HTTP server for processes of this machine, over a unix
// socket that is no front's: the kernel says who each is. The program's own user
// may do everything, and of others those whom admit knows ask under the name
// local:UID. Give it a listener from Local.
func (s *Shell) LocalServer(admit func(access.Caller) bool) *http.Server {
	return &http.Server{
		Handler: timelyBodies(s),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, localKey{}, peerOf(c, admit))
		},
		ReadHeaderTimeout: localHeader,
		IdleTimeout:       localIdle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// timelyBodies bounds how long h waits for a request's body.
func timelyBodies(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			rc := http.NewResponseController(w)
			_ = rc.SetReadDeadline(time.Now().Add(localBody)) // of a closed connection it fails, and so will the read
			r.Body = &timelyBody{r.Body, rc}
		}
		h.ServeHTTP(w, r)
	})
}

type timelyBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *timelyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.rc.SetReadDeadline(time.Time{}) // the handler may take its time
	}
	return n, err
}

// peerOf asks the kernel who connected.
func peerOf(c net.Conn, admit func(access.Caller) bool) *localPeer {
	p := &localPeer{}
	cred, err := credentials(c)
	if err != nil {
		p.err = api.NotVerified.Err("the kernel does not say who asks")
		return p
	}
	if cred.Uid == overflowUID {
		p.err = api.NotVerified.Err("the kernel has no name for who asks")
		return p
	}
	p.who = access.Local{UID: cred.Uid, Self: cred.Uid == uint32(os.Getuid())}
	if caller := (access.Caller{Local: &p.who}); !p.who.Self && !admit(caller) {
		p.err = api.Forbidden.Err(fmt.Sprintf("no grant names %s", caller))
	}
	return p
}

func credentials(c net.Conn) (*unix.Ucred, error) {
	if l, ok := c.(*localConn); ok {
		c = l.Conn
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a unix socket")
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, failed
}

// Local bounds how many connections of l are open at a time; more wait.
func Local(l net.Listener, conns int) net.Listener {
	return &localListener{Listener: l, room: make(chan struct{}, conns), closed: make(chan struct{})}
}

type localListener struct {
	net.Listener
	room   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *localListener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &localConn{Conn: c, free: sync.OnceFunc(func() { <-l.room })}, nil
}

func (l *localListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type localConn struct {
	net.Conn
	free func()
}

// Write ends the connection of somebody who reads nothing.
func (c *localConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(localWrite)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *localConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
