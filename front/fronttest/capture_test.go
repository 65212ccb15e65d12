package fronttest_test

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// pair is a FastCGI parameter as it stood on the socket.
type pair struct{ name, value string }

// capture takes the responder's place for one request and returns the
// parameters that the front sends, before any responder could tidy them up.
func (w *world) capture(t *testing.T) <-chan []pair {
	t.Helper()
	l, err := net.Listen("unix", w.o.Socket)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(w.o.Socket, 0o777))
	out := make(chan []pair, 1)
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		defer close(out)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if pairs := answer(c); pairs != nil {
				out <- pairs
			}
			c.Close()
		}
	}()
	return out
}

// answer reads one request's parameters and says 200.
func answer(c net.Conn) []pair {
	var params []byte
	for {
		kind, content, err := readRecord(c)
		if err != nil {
			return nil // somebody who only tried whether we accept
		}
		if kind == 4 { // FCGI_PARAMS
			if len(content) == 0 {
				break
			}
			params = append(params, content...)
		}
	}
	text := "Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
	c.Write(append([]byte{1, 6, 0, 1, 0, byte(len(text)), 0, 0}, text...))
	c.Write([]byte{1, 6, 0, 1, 0, 0, 0, 0, 1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	io.Copy(io.Discard, c)
	return pairs(params)
}

func readRecord(r io.Reader) (byte, []byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	content := make([]byte, int(binary.BigEndian.Uint16(head[4:]))+int(head[6]))
	_, err := io.ReadFull(r, content)
	return head[1], content[:binary.BigEndian.Uint16(head[4:])], err
}

// pairs decodes the name-value pairs of FastCGI, section 3.4.
func pairs(b []byte) []pair {
	length := func() int {
		if b[0] < 0x80 {
			n := int(b[0])
			b = b[1:]
			return n
		}
		n := int(binary.BigEndian.Uint32(b) & 0x7fffffff)
		b = b[4:]
		return n
	}
	var out []pair
	for len(b) > 0 {
		n, v := length(), 0
		v = length()
		out = append(out, pair{string(b[:n]), string(b[n : n+v])})
		b = b[n+v:]
	}
	return out
}
