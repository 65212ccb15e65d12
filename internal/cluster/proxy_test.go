package cluster

import (
	"bytes"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

// source serves data to each connection.
func source(t *testing.T, data []byte) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write(data)
			c.Close()
		}
	}()
	return l.Addr().String()
}

func fetch(t *testing.T, p *Proxy) ([]byte, error) {
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	defer c.Close()
	return io.ReadAll(c)
}

func TestProxyCarries(t *testing.T) {
	data := bytes.Repeat([]byte("abc"), 1<<20)
	p, err := NewProxy(source(t, data))
	require.NoError(t, err)
	defer p.Close()
	got, err := fetch(t, p)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.EqualValues(t, len(data), p.Sent())
}

func TestProxyCutsInTheMiddle(t *testing.T) {
	data := bytes.Repeat([]byte("abc"), 4<<20)
	p, err := NewProxy(source(t, data))
	require.NoError(t, err)
	defer p.Close()
	p.Cut(3, 3*int64(len(data)))
	var cut []float64
	size := float64(3 * len(data))
	for p.Cuts() < 3 {
		got, err := fetch(t, p)
		if err != nil || len(got) < len(data) {
			// What was sent, not what came: a reset takes unread bytes with it.
			cut = append(cut, float64(p.Sent())/size)
		}
		require.True(t, bytes.HasPrefix(data, got))
	}
	require.Len(t, cut, 3)
	for _, share := range cut {
		require.True(t, 0.2 <= share && share <= 0.8, "cut at %.2f of the bytes", share)
	}
	got, err := fetch(t, p)
	require.NoError(t, err)
	require.Len(t, got, len(data), "cut a fourth time")
}

func TestProxyLimits(t *testing.T) {
	data := make([]byte, 2<<20)
	p, err := NewProxy(source(t, data))
	require.NoError(t, err)
	defer p.Close()
	p.Limit(4 << 20)
	began := time.Now()
	_, err = fetch(t, p)
	require.NoError(t, err)
	require.Greater(t, time.Since(began), 200*time.Millisecond, "2 MiB at 4 MiB/s, of which one at once")
}

func TestProxyCloseEndsConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts nothing: the kernel does
	require.NoError(t, err)
	defer l.Close()
	p, err := NewProxy(l.Addr().String())
	require.NoError(t, err)
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, p.Close())
	_, err = io.ReadAll(c)
	if err != nil {
		require.ErrorContains(t, err, "reset")
	}
}

func TestProxyDelays(t *testing.T) {
	data := bytes.Repeat([]byte("abc"), 8<<20) // more than can be under way
	p, err := NewProxy(source(t, data))
	require.NoError(t, err)
	defer p.Close()
	const delay = 30 * time.Millisecond
	p.Delay(delay)
	start := time.Now()
	got, err := fetch(t, p)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.GreaterOrEqual(t, time.Since(start), delay)
	require.EqualValues(t, len(data), p.Moved())

	c, err := net.Dial("tcp", p.Addr()) // who does not read holds nothing up
	require.NoError(t, err)
	defer c.Close()
}
