package fronttest_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/front"
	"gantry/front/selftest"
)

func rangesStreamed(t *testing.T, w *world) string {
	return ranges(t, w.client(t), "selftest/range")
}

func rangesSent(t *testing.T, w *world) string {
	p, path := w.client(t), "sent?file="+url.QueryEscape("disk 1.img")
	text := ranges(t, p, path)
	resp, _ := p.do(t, http.MethodHead, path, nil)
	if resp.Header.Get("Content-Type") == "application/x-from-responder" {
		text += "; type kept"
	}
	return text
}

func ranges(t *testing.T, p *peer, path string) string {
	t.Helper()
	resp, _ := p.do(t, http.MethodHead, path, nil)
	head := fmt.Sprintf("HEAD %d of %d", resp.StatusCode, resp.ContentLength)
	tag := resp.Header.Get("ETag")
	require.NotEmpty(t, tag)
	const from, to = 5_000_001, 5_100_000
	part := fmt.Sprintf("bytes=%d-%d", from, to)
	ask := func(name string, header ...string) string {
		resp, data := p.get(t, path, header...)
		text := fmt.Sprintf("%s %d", name, resp.StatusCode)
		switch resp.StatusCode {
		case http.StatusOK:
			return text + right(data, 0, selftest.RangeSize)
		case http.StatusPartialContent:
			if !strings.HasPrefix(resp.Header.Get("Content-Type"), "multipart/") {
				require.Equal(t, fmt.Sprintf("bytes %d-%d/%d", from, to, selftest.RangeSize), resp.Header.Get("Content-Range"))
				return text + right(data, from, to+1-from)
			}
		}
		return text
	}
	return strings.Join([]string{
		ask("one", "Range", part),
		ask("If-Range same", "Range", part, "If-Range", tag),
		ask("If-Range other", "Range", part, "If-Range", `"other"`),
		ask("two", "Range", "bytes=0-9,100-109"),
		ask("past the end", "Range", fmt.Sprintf("bytes=%d-", selftest.RangeSize+5)),
		head,
	}, "; ")
}

func right(data []byte, from, length int) string {
	if len(data) != length {
		return fmt.Sprintf(" but %d bytes instead of %d", len(data), length)
	}
	for i, b := range data {
		if b != selftest.Byte(int64(from+i)) {
			return fmt.Sprintf(" but wrong at %d", from+i)
		}
	}
	return " right"
}

func sendRefusals(t *testing.T, w *world) string {
	p := w.client(t)
	var out []string
	for _, c := range []struct{ name, file string }{{"link", "link"}, {"way out", "../secret"}, {"missing", "nothing"}} {
		resp, data := p.get(t, "sent?file="+url.QueryEscape(c.file))
		require.NotContains(t, string(data), "nobody asked")
		out = append(out, fmt.Sprintf("%s %d", c.name, resp.StatusCode))
	}
	// What nginx keeps for itself.
	direct := *p
	direct.base = strings.TrimSuffix(p.base, "/node/v1/")
	resp, _ := direct.get(t, front.SendPrefix+"disks/disk%201.img")
	return strings.Join(append(out, fmt.Sprintf("direct %d", resp.StatusCode)), "; ")
}
