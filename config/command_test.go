package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/config"
)

// withCommand adds a command with these lines.
func withCommand(lines string) string {
	return base + "[[resource]]\nname = \"dump\"\nkind = \"command\"\n" + lines
}

func command(t testing.TB, lines string) *config.Command {
	t.Helper()
	n, err := config.ParseNode("node.toml", []byte(withCommand(lines)))
	require.NoError(t, err)
	r, ok := n.Resource("dump")
	require.True(t, ok)
	return r.Command
}

const dump = `direction = "export"
argv = ["/bin/dump", "$(reboot); {x} ", "{db}", "{day}", "{n}", "{how}"]
[resource.args]
db = "name"
day = "date"
n = "number"
how = ["full", "a;b $(c)"]
`

func TestCommandRefused(t *testing.T) {
	for name, c := range map[string]struct{ lines, want string }{
		"no direction":            {`argv = ["/bin/a"]`, `resource[1].direction: is missing`},
		"no argv":                 {`direction = "export"`, `resource[1].argv: names no program`},
		"a relative program":      {"direction = \"export\"\nargv = [\"dump\"]", `resource[1].argv[0]: "dump" is no absolute path`},
		"a program to choose":     {"direction = \"export\"\nargv = [\"{db}\"]\n[resource.args]\ndb = \"name\"", `resource[1].argv[0]: "{db}" is no absolute path`},
		"a placeholder in part":   {"direction = \"export\"\nargv = [\"/a\", \"--db={db}\", \"{db}\"]\n[resource.args]\ndb = \"name\"", `{db} is only a part of "--db={db}"`},
		"a placeholder of no one": {"direction = \"export\"\nargv = [\"/a\", \"{db}\"]", `{db} has no line in [resource.args]`},
		"one that is not used":    {"direction = \"export\"\nargv = [\"/a\"]\n[resource.args]\ndb = \"name\"", `no argument of argv is {db}`},
		"an unknown type":         {"direction = \"export\"\nargv = [\"/a\", \"{db}\"]\n[resource.args]\ndb = \"regexp\"", `"regexp" is unknown; allowed: name, number, date, or a list of words`},
		"a word like an option":   {"direction = \"export\"\nargv = [\"/a\", \"{db}\"]\n[resource.args]\ndb = [\"-x\"]", `"-x" begins with '-'`},
		"a small spool":           {"direction = \"export\"\nargv = [\"/a\"]\nspool = \"1MiB\"", `resource[1].spool: is 1MiB; allowed: at least 64MiB`},
		"a path":                  {"direction = \"export\"\nargv = [\"/a\"]\npath = \"/srv/x\"", `resource[1].path: is unknown`},
		"a bad variable":          {"direction = \"export\"\nargv = [\"/a\"]\nenv = [\"PATH\"]", `"PATH" is not NAME=VALUE`},
		"a variable of ours":      {"direction = \"export\"\nargv = [\"/a\"]\nenv = [\"GANTRY_TASK=1\"]", `gantry's own`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.ParseNode("node.toml", []byte(withCommand(c.lines)))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestCommandExpand(t *testing.T) {
	c := command(t, dump)
	require.Equal(t, "/", c.Dir)
	require.EqualValues(t, config.DefaultSpool, c.Spool)
	good := []string{"db=shop-1.x_", "day=2026-02-28", "n=007", "how=full"}
	argv, err := c.Expand(good)
	require.NoError(t, err)
	require.Equal(t, []string{"/bin/dump", "$(reboot); {x} ", "shop-1.x_", "2026-02-28", "007", "full"}, argv)
	require.Equal(t, "{db}", c.Argv[2], "the configuration stays as it is")
	for name, bad := range map[string]string{
		"F98 an option beginning with - as name":   "db=-rf",
		"F98 an option beginning with - as number": "n=-1",
		"F98 an option beginning with - as word":   "how=-full",
		"F99 shell characters in a name":           "db=a;reboot",
		"F99 a shell's variable":                   "db=$HOME",
		"F99 a newline":                            "db=a\nb",
		"a path":                                   "db=a/b",
		"nothing":                                  "db=",
		"a dot first":                              "db=.x",
		"a long name":                              "db=" + strings.Repeat("x", 65),
		"a day that there is not":                  "day=2026-02-30",
		"a day in other words":                     "day=2026-2-3",
		"a number with a sign":                     "n=+1",
		"a word that is not listed":                "how=none",
		"an argument that is not there":            "user=x",
		"no name":                                  "x",
	} {
		t.Run(name, func(t *testing.T) {
			key, _, _ := strings.Cut(bad, "=")
			values := slices.DeleteFunc(slices.Clone(good), func(s string) bool { return strings.HasPrefix(s, key+"=") })
			_, err := c.Expand(append(values, bad))
			require.Error(t, err)
			require.Contains(t, err.Error(), map[bool]string{true: "allowed:", false: "none of the arguments"}[len(values) == 3])
		})
	}
	t.Run("F99 shell characters of the administrator's stay literal", func(t *testing.T) {
		argv, err := c.Expand([]string{"db=a", "day=2026-02-28", "n=1", "how=a;b $(c)"})
		require.NoError(t, err)
		require.Equal(t, "a;b $(c)", argv[5])
	})
	_, err = c.Expand(good[1:])
	require.ErrorContains(t, err, "db is missing")
	_, err = c.Expand(append(good, "db=x"))
	require.ErrorContains(t, err, "db is given twice")
	_, err = command(t, "direction = \"import\"\nargv = [\"/bin/cat\"]").Expand([]string{"db=x"})
	require.ErrorContains(t, err, "takes none")
}

// FuzzCommand: whatever values are accepted, each is a whole argument, none looks
// like an option, and no other argument changes.
func FuzzCommand(f *testing.F) {
	f.Add("db", "shop", "name", "x,y", "")
	f.Fuzz(func(t *testing.T, name, value, kind, words, more string) {
		list := strings.Split(words, ",")
		lines := "direction = \"export\"\nargv = [\"/bin/x\", \"-a\", \"{db}\", \"z\"]\n" + more + "\n[resource.args]\n"
		if kind == "words" {
			lines += "db = [" + quoteAll(list) + "]\n"
		} else {
			lines += "db = " + quoteAll([]string{kind}) + "\n"
		}
		n, err := config.ParseNode("f", []byte(withCommand(lines)))
		if err != nil {
			return
		}
		r, _ := n.Resource("dump")
		argv, err := r.Command.Expand([]string{name + "=" + value})
		if err != nil {
			return
		}
		require.Equal(t, []string{"/bin/x", "-a", value, "z"}, argv)
		require.Equal(t, "db", name)
		require.NotEmpty(t, value)
		require.NotEqual(t, byte('-'), value[0])
		if kind != "words" {
			require.NotContains(t, value, "/")
			require.False(t, strings.ContainsAny(value, " \t\r\n\x00$`\"'\\;&|<>(){}[]*?!#~"))
		} else {
			require.Contains(t, list, value)
		}
	})
}

func quoteAll(list []string) string {
	var quoted []string
	for _, s := range list {
		quoted = append(quoted, "'"+s+"'")
	}
	return strings.Join(quoted, ", ")
}
