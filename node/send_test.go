package node_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// The responder is asked over its socket, because a front would follow these
// headers; real fronts are tried in front/fronttest.
func TestSentByTheFront(t *testing.T) {
	const odd = "dir with space/100%_+?#ü.img"
	const escaped = "/dir%20with%20space/100%25_+%3F%23%C3%BC.img"
	for kind, want := range map[string][2]string{
		"lighttpd": {"X-Sendfile", ""},
		"nginx":    {"X-Accel-Redirect", "/-/send/disks" + escaped},
	} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, "", "alpha")
			alpha := w.all["alpha"]
			text, err := os.ReadFile(alpha.config)
			require.NoError(t, err)
			changed := strings.Replace(string(text), `kind = "embedded"`, `kind = "`+kind+`"`, 1)
			changed = strings.Replace(changed, "writable = true", "writable = true\nsend = \"front\"", 1)
			require.NoError(t, os.WriteFile(alpha.config, []byte(changed), 0o644))
			alpha.start()
			name, value := want[0], want[1]
			if value == "" {
				value = alpha.dir + "/disks" + escaped
			}
			alpha.file("disks/"+odd, 1000, 1)
			export, _ := w.pair(odd)
			alpha.follow("ann", export)
			ask := func(who, method string, export *api.TaskRequest, ranges ...string) *httptest.ResponseRecorder {
				params := map[string]string{}
				for i, r := range ranges {
					params[[]string{"HTTP_RANGE", "HTTP_IF_RANGE"}[i]] = r
				}
				rec, err := direct(filepath.Join(alpha.dir, "s"), method, api.Prefix+"/tasks/"+export.ID+"/content", string(pemOf(w.ids[who])), params)
				require.NoError(t, err)
				return rec
			}
			sent := func(rec *httptest.ResponseRecorder) string { return rec.Header().Get(name) }

			r := ask("ann", "GET", export, "bytes=0-9")
			require.Equal(t, value, sent(r), "%d %s", r.Code, r.Body)
			require.Equal(t, api.TypeBytes, r.Header().Get("Content-Type"))
			require.Empty(t, r.Body.String())
			require.Equal(t, value, sent(ask("ann", "GET", export)), "a whole file of a few bytes")

			require.Empty(t, sent(ask("ann", "GET", export, "bytes=0-9", `"x"`)), "If-Range")
			require.Empty(t, sent(ask("ann", "GET", export, "bytes=0-1,3-4")), "two parts")
			require.Empty(t, sent(ask("ann", "GET", export, "bytes=1000-")), "beyond the end")
			require.Empty(t, sent(ask("ann", "HEAD", export)), "HEAD")
			require.Empty(t, sent(ask("bob", "GET", export)), "a stranger")

			// Fronts follow no link: they would refuse, and the reader try again.
			require.NoError(t, os.Symlink("dir with space", filepath.Join(alpha.dir, "disks/linked")))
			linked, _ := w.pair("linked/100%_+?#ü.img")
			alpha.follow("ann", linked)
			r = ask("ann", "GET", linked, "bytes=0-9")
			require.Empty(t, sent(r), "behind a link")
			require.Equal(t, 10, r.Body.Len())
			real := alpha.dir + "/real"
			require.NoError(t, os.Rename(alpha.dir+"/disks", real))
			require.NoError(t, os.Symlink(real, alpha.dir+"/disks"))
			require.Equal(t, kind == "nginx", sent(ask("ann", "GET", export, "bytes=0-9")) != "", "a resource behind a link")
			require.NoError(t, os.Remove(alpha.dir+"/disks"))
			require.NoError(t, os.Rename(real, alpha.dir+"/disks"))

			big := filepath.Join(alpha.dir, "disks/big")
			require.NoError(t, os.WriteFile(big, nil, 0o644))
			require.NoError(t, os.Truncate(big, api.MaxFrontSend+10))
			export, _ = w.pair("big")
			alpha.follow("ann", export)
			require.NotEmpty(t, sent(ask("ann", "GET", export, "bytes=0-67108863")), "64 MiB")
			r = ask("ann", "GET", export, "bytes=0-67108864")
			require.Empty(t, sent(r), "one byte more")
			require.Equal(t, 67108865, r.Body.Len())

			require.NoError(t, os.Rename(big, big+".old"))
			alpha.file("disks/big", 5, 1)
			r = ask("ann", "GET", export, "bytes=0-3")
			require.Equal(t, 409, r.Code)
			require.Contains(t, r.Body.String(), "source_changed")
		})
	}
}
