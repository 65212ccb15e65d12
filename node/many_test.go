package node_test

import (
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// rawRequest is a FastCGI request without a body, as a front writes it: begin,
// parameters and two ends of streams (FastCGI specification, sections 3.3, 3.4
// and 5.1).
func rawRequest(params map[string]string) []byte {
	record := func(kind byte, content []byte) []byte {
		b := append([]byte{1, kind, 0, 1}, byte(len(content)>>8), byte(len(content)), 0, 0)
		return append(b, content...)
	}
	var pairs []byte
	for k, v := range params {
		pairs = append(pairs, byte(len(k)))
		pairs = binary.BigEndian.AppendUint32(pairs, 1<<31|uint32(len(v)))
		pairs = append(append(pairs, k...), v...)
	}
	out := record(1, []byte{0, 1, 0, 0, 0, 0, 0, 0})
	out = append(append(out, record(4, pairs)...), record(4, nil)...)
	return append(out, record(5, nil)...)
}

// With its default limits a node serves 1,000 feeds, and answers besides.
func TestThousandFeeds(t *testing.T) {
	w := newWorld(t, "", "alpha")
	alpha := w.all["alpha"].start()
	alpha.file("disks/a", 10, 1)
	export, _ := w.pair("a")
	alpha.follow("ann", export)
	request := rawRequest(map[string]string{
		"REQUEST_METHOD": "GET", "REQUEST_URI": api.Prefix + "/tasks/" + export.ID + "/feed?after=0", "SERVER_PROTOCOL": "HTTP/1.1",
		"HTTPS": "on", "SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_CERT": string(pemOf(w.ids["ann"])), "CONTENT_LENGTH": "0",
	})
	const feeds = 1100 // more than 1,024, a limit that much else has
	conns := make([]net.Conn, feeds)
	for i := range conns {
		var err error
		conns[i], err = net.Dial("unix", filepath.Join(alpha.dir, "s"))
		require.NoError(t, err)
		defer conns[i].Close()
		require.NoError(t, conns[i].SetDeadline(time.Now().Add(time.Minute)))
		_, err = conns[i].Write(request)
		require.NoError(t, err)
	}
	buf := make([]byte, 4096)
	for i, c := range conns {
		for seen := ""; !strings.Contains(seen, `{"kind":"hello"`); {
			n, err := c.Read(buf)
			require.NoError(t, err, "feed %d: %q", i, seen)
			seen += string(buf[:n])
		}
	}
	require.Equal(t, 200, alpha.ask("ann", "GET", "/status", nil, "").status)
}
