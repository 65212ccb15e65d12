package front_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/front"
	"gantry/internal/testkit"
	"gantry/lighttpd"
	"gantry/nginx"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// example is what an administrator of two networks writes.
func example() front.Options {
	return front.Options{
		API:    []string{"192.0.2.10:8443", "[2001:db8::10]:8443"},
		Data:   []string{"198.51.100.10:8444"},
		Socket: "/run/gantry/fcgi.sock",
		Cert:   "/etc/gantry-front/front.pem", Key: "/etc/gantry-front/front.key", CA: "/etc/gantry-front/ca.pem",
		Dir:          "/var/lib/gantry-front",
		Send:         []front.Dir{{Name: "disks", Path: "/srv/disks"}},
		TokenInclude: "/etc/gantry-front/token.conf",
	}
}

var servers = []front.Kind{front.Lighttpd, front.Nginx}

func TestRenderFillsInEveryOption(t *testing.T) {
	for _, kind := range servers {
		text, err := front.Render(kind, example())
		require.NoError(t, err)
		for _, want := range []string{
			"192.0.2.10", "[2001:db8::10]", "198.51.100.10:8444", "/run/gantry/fcgi.sock", "/etc/gantry-front/front.pem",
			"/etc/gantry-front/front.key", "/etc/gantry-front/ca.pem", "/var/lib/gantry-front", "/srv/disks/", "/etc/gantry-front/token.conf",
		} {
			require.Contains(t, text, want, "%s", kind)
		}
		require.NotContains(t, text, "<no value>")
		require.NotContains(t, text, "{{")
	}
}

// A master's front forwards the master's API alone, and sends no files.
func TestRenderForAMaster(t *testing.T) {
	o := example()
	o.Prefix, o.Data, o.Send = "/api/v1", nil, nil
	for _, kind := range servers {
		text, err := front.Render(kind, o)
		require.NoError(t, err)
		require.Contains(t, text, "before one gantry master.")
		require.Contains(t, text, "/api/v1/")
		require.NotContains(t, text, "/node/v1")
		require.NotContains(t, text, "sendfile-docroot")
	}
	for _, prefix := range []string{"/", "/api", "/api/v1/", "/node/v1\" {"} {
		refuses(t, "prefix", prefix, func(o *front.Options, v string) { o.Prefix = v })
	}
	o.Data = []string{"198.51.100.10:8444"}
	_, err := front.Render(front.Nginx, o)
	require.ErrorContains(t, err, "a master has no bulk data")
}

// What is not asked for is not in the file: no folder to send from, no token.
func TestRenderLeavesOut(t *testing.T) {
	o := example()
	o.Send, o.TokenInclude = nil, ""
	for _, kind := range servers {
		text, err := front.Render(kind, o)
		require.NoError(t, err)
		for _, absent := range []string{"sendfile-docroot", `"x-sendfile" => "enable"`, "internal;", "include ", "mod_setenv", "setenv."} {
			for line := range strings.Lines(text) {
				if !strings.HasPrefix(strings.TrimSpace(line), "#") {
					require.NotContains(t, line, absent, "%s", kind)
				}
			}
		}
	}
}

// A value ends in a file in the server's own language. Each of these would
// say something there, or be a mistake.
func TestRenderRefusesValues(t *testing.T) {
	hostile := []string{
		"", "relative", "/a/../b", "/a//b", "/a/", "/a b", `/a"b`, "/a'b", "/a;b", "/a{b", "/a}b", "/a$b", "/a#b", "/a\\b", "/a%b",
		"/a\nb", "/a\rb", "/a\tb", "/a\x00b", "/a:b", "/a*b", "/ä", "/" + strings.Repeat("x", 2000),
	}
	paths := map[string]func(*front.Options, string){
		"socket": func(o *front.Options, v string) { o.Socket = v },
		"cert":   func(o *front.Options, v string) { o.Cert = v },
		"key":    func(o *front.Options, v string) { o.Key = v },
		"ca":     func(o *front.Options, v string) { o.CA = v },
		"dir":    func(o *front.Options, v string) { o.Dir = v },
		"send":   func(o *front.Options, v string) { o.Send = []front.Dir{{Name: "disks", Path: v}} },
		"token":  func(o *front.Options, v string) { o.TokenInclude = v },
	}
	for name, set := range paths {
		for _, v := range hostile {
			if name == "token" && v == "" {
				continue // no token
			}
			refuses(t, name, v, set)
		}
	}
	refuses(t, "socket", "/"+strings.Repeat("x", 107), paths["socket"])
	refuses(t, "send", "/", paths["send"])
	for _, v := range []string{
		"", "8443", ":8443", "0.0.0.0", "host:8443", "192.0.2.1:0", "192.0.2.1:99999", "[::1]", "::1:8443", "[fe80::1%eth0]:8443",
		"[::ffff:192.0.2.1]:8443", "192.0.2.01:8443", "192.0.2.1:08443", "192.0.2.1:8443 ssl", "192.0.2.1:8443;", "[2001:DB8::1]:8443",
		"192.0.2.10:8443",
	} {
		refuses(t, "data", v, func(o *front.Options, v string) { o.Data = []string{v} }) // the last is in API already
	}
	for _, v := range []string{"", "A", "a b", "../a", ".a", "a/b", "a;", "a\n", strings.Repeat("a", 65)} {
		refuses(t, "send", v, func(o *front.Options, v string) { o.Send = []front.Dir{{Name: v, Path: "/srv/a"}} })
	}
	refuses(t, "send", "twice", func(o *front.Options, v string) {
		o.Send = []front.Dir{{Name: "a", Path: "/srv/a"}, {Name: "a", Path: "/srv/b"}}
	})
	refuses(t, "api", "none", func(o *front.Options, _ string) { o.API = nil })
	refuses(t, "max upload", "too small", func(o *front.Options, _ string) { o.MaxUpload = 1000 })
	refuses(t, "max upload", "too large", func(o *front.Options, _ string) { o.MaxUpload = 1 << 50 })
	refuses(t, "token", "a secret in the main file", func(o *front.Options, _ string) { o.Token = strings.Repeat("0", 64) })
}

func refuses(t *testing.T, name, value string, set func(*front.Options, string)) {
	t.Helper()
	for _, kind := range servers {
		o := example()
		set(&o, value)
		_, err := front.Render(kind, o)
		require.ErrorContains(t, err, name, "%s = %q", name, value)
	}
}

func TestRenderToken(t *testing.T) {
	const secret = "00112233445566778899aabbccddeeff"
	for _, kind := range servers {
		text, err := front.RenderToken(kind, secret)
		require.NoError(t, err)
		require.Contains(t, text, `"`+secret+`"`)
		require.Contains(t, text, "GANTRY_FRONT_TOKEN")
		for _, bad := range []string{"", "short", secret + `"`, secret + "\n", secret + "$x", strings.Repeat("0", 257)} {
			_, err := front.RenderToken(kind, bad)
			require.ErrorContains(t, err, "token: want", "%q", bad)
			if bad != "" {
				require.NotContains(t, err.Error(), bad, "the secret is in the error")
			}
		}
	}
}

func TestRenderOfNoServer(t *testing.T) {
	for _, kind := range []front.Kind{front.EmbeddedServer, "apache", ""} {
		_, err := front.Render(kind, example())
		require.ErrorContains(t, err, "allowed: lighttpd, nginx")
	}
}

// Every paragraph of the shipped files begins with its reason, and no reason
// stands for more than a handful of lines.
func TestEveryLineHasItsReason(t *testing.T) {
	for kind, files := range map[front.Kind]fs.FS{front.Lighttpd: lighttpd.Files, front.Nginx: nginx.Files} {
		for _, name := range []string{"node.conf.tmpl", "token.conf.tmpl"} {
			data, err := fs.ReadFile(files, name)
			require.NoError(t, err)
			explained, since := false, 0
			for line := range strings.Lines(string(data)) {
				text := strings.TrimSpace(line)
				switch {
				case strings.HasPrefix(text, "#"):
					explained, since = true, 0
				case text == "":
					explained = false
				case strings.HasPrefix(text, "{{") || strings.Trim(text, "(){} ") == "" || strings.HasPrefix(text, `"`) || strings.HasSuffix(text, "server {") || text == "http {" || text == "}":
					// structure, and values of a list that has its reason
				default:
					since++
					require.True(t, explained, "%s %s: %q has no reason above it", kind, name, text)
					require.True(t, since <= 5 || strings.HasPrefix(text, "fastcgi_param") || strings.HasPrefix(text, "listen"), "%s %s: %q is too far from its reason", kind, name, text)
				}
			}
		}
	}
}

// The server's own parser agrees with the templates; what it refuses is said.
func TestCheckConfig(t *testing.T) {
	for _, kind := range servers {
		t.Run(string(kind), func(t *testing.T) {
			if _, err := front.Program(kind); err != nil {
				t.Skip("needs " + string(kind) + ": " + err.Error())
			}
			o := example()
			dir := testkit.Dir(t)
			o.Dir = filepath.Join(dir, "front")
			require.NoError(t, front.Prepare(o, -1, -1))
			conf := filepath.Join(dir, "node.conf")
			require.NoError(t, os.WriteFile(conf, []byte("nonsense {"), 0o600))
			err := front.CheckConfig(t.Context(), kind, conf, o)
			require.ErrorContains(t, err, conf)

			// No key there: the server must be the one who says so.
			text, err := front.Render(kind, o)
			require.NoError(t, err)
			text = strings.ReplaceAll(text, "include \"", "# include \"")
			require.NoError(t, os.WriteFile(conf, []byte(text), 0o600))
			require.ErrorContains(t, front.CheckConfig(t.Context(), kind, conf, o), "/etc/gantry-front/")
		})
	}
}

func TestPrepare(t *testing.T) {
	o := example()
	o.Dir = filepath.Join(testkit.Dir(t), "front")
	require.NoError(t, front.Prepare(o, -1, -1))
	info, err := os.Stat(o.Dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700)|os.ModeDir, info.Mode())
	require.NoError(t, front.Prepare(o, -1, -1), "a second time")

	// A name that points elsewhere is not followed.
	require.NoError(t, os.Remove(o.Dir))
	require.NoError(t, os.Symlink(testkit.Dir(t), o.Dir))
	require.Error(t, front.Prepare(o, -1, -1))
}

func TestReloadOfNothing(t *testing.T) {
	require.ErrorContains(t, front.Reload(front.EmbeddedServer, os.Getpid()), "restart it")
	for _, pid := range []int{-1, 0, 1} {
		require.ErrorContains(t, front.Reload(front.Nginx, pid), "no process of ours")
	}
}

func TestCommandNamesTheFile(t *testing.T) {
	for _, kind := range servers {
		argv := front.Command(kind, "/etc/x.conf", example())
		require.Contains(t, argv, "/etc/x.conf")
		require.Equal(t, string(kind), filepath.Base(argv[0]))
	}
}
