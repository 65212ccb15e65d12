package transfer_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/api"
	"gantry/transfer"

	"github.com/stretchr/testify/require"
)

func TestFilter(t *testing.T) {
	for _, c := range []struct{ rule, matches, not string }{
		{"- *.o", "a.o d/a.o .o", "a.oo d/a.o/x"},
		{"- /a", "a", "d/a"},
		{"- a/", "a/ d/a/", "a d/a"},
		{"- a/b", "a/b d/a/b", "a/c b ba/b"},
		{"- a/*/c", "a/x/c d/a/x/c", "a/x/y/c a/c"},
		{"- a/**/c", "a/x/c a/x/y/c d/a/x/c", "a/c"},
		{"- **/x", "x a/x a/b/x", "ax"},
		{"- **", "a a/b", ""},
		{"- d/***", "d/ d/a d/a/b", "d da/"},
		{"- /d/***", "d/ d/a", "e/d/"},
		{"- a?c", "abc d/abc", "ac a/c"},
		{"- [a-c][!0-9]", "ax bb", "a1 dx a"},
		{"- [[:digit:]]x", "1x", "ax"},
		{`- a\*`, `a\*`, "ab"},
		{`- \*\?`, `*?`, "ab"},
		{"- []x]", "] x", "a"},
		{"- [a-", "", "a -"},
		{"- a b", "a b", "ab"},
	} {
		f, err := transfer.ParseFilter([]string{c.rule})
		require.NoError(t, err, c.rule)
		check := func(names string, want bool) {
			if c.rule == "- a b" {
				names = strings.ReplaceAll(names, "a b", "a\x00b")
			}
			for name := range strings.FieldsSeq(names) {
				name, dir := strings.CutSuffix(strings.ReplaceAll(name, "\x00", " "), "/")
				require.Equal(t, !want, f.Includes(name, dir), "%s on %s", c.rule, name)
			}
		}
		check(strings.ReplaceAll(c.matches, `a\*`, `a*`), true)
		check(c.not, false)
	}
	for _, rule := range []string{"", "a", "-a", "- ", "- /", "+", "-/ a", ". file", "- a\nb", "- " + strings.Repeat("x", 1025)} {
		_, err := transfer.ParseFilter([]string{rule})
		requireCode(t, api.BadRequest, err)
	}
	_, err := transfer.ParseFilter(slices.Repeat([]string{"- a"}, 513))
	requireCode(t, api.BadRequest, err)
	// Stars do not make it slow.
	f, err := transfer.ParseFilter([]string{"- " + strings.Repeat("*a", 300) + "b", "- " + strings.Repeat("**a/", 200) + "b"})
	require.NoError(t, err)
	require.True(t, f.Includes(strings.Repeat("a", 255), false))
	require.True(t, f.Includes(strings.Repeat("a/", 2000)+"c", false))
}

// TestFilterAgainstRsync: the rules choose what rsync chooses, on random trees.
func TestFilterAgainstRsync(t *testing.T) {
	need(t, "rsync")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 4 {
		dir := t.TempDir()
		for range 60 {
			p := filepath.Join(dir, randomName(r), randomName(r), randomName(r))
			p = filepath.Join(p[:len(dir)+1+r.IntN(len(p)-len(dir)-1)], "f"+randomName(r))
			if os.MkdirAll(filepath.Dir(p), 0o755) == nil {
				os.WriteFile(p, nil, 0o644)
			}
		}
		for range 8 {
			var rules, args []string
			for range 1 + r.IntN(4) {
				rule := []string{"- ", "+ ", "- "}[r.IntN(3)] + randomPattern(r)
				rules, args = append(rules, rule), append(args, "--filter="+rule)
			}
			out, err := exec.Command("rsync", append(args, "-rn", "--out-format=%n", dir+"/", t.TempDir()+"/")...).CombinedOutput()
			require.NoError(t, err, "%q: %s", rules, out)
			var want []string
			for name := range strings.Lines(string(out)) {
				if name = strings.TrimSuffix(strings.TrimSuffix(name, "\n"), "/"); name != "." {
					want = append(want, name)
				}
			}
			x, err := transfer.OpenTree(openRoot(t, dir), "", t.TempDir(), transfer.TreeOptions{Filter: rules}, transfer.Silent{})
			require.NoError(t, err)
			lines, _ := manifest(t, x, new(transfer.TreeCursor), 1000)
			require.NoError(t, x.Close())
			var got []string
			for _, l := range lines {
				got = append(got, l.Entry.Path)
			}
			require.ElementsMatch(t, want, got, "rules %q in %s", rules, shell(t, dir, "find . -printf '%P '"))
		}
	}
}

func randomName(r *rand.Rand) string {
	return []string{"a", "b", "ab", "a.o", "b.o", "abc", "[a]", "a*", "-", "x"}[r.IntN(10)]
}

func randomPattern(r *rand.Rand) string {
	parts := []string{"a", "b", "*", "**", "?", "[ab]", "[!a]", "[a-c]*", ".o", "*.o", "***", "/", "/", "/", "f", `\*`, "[[:alpha:]]", "[]a]", "[^f]", "ab", "x"}
	for {
		var b strings.Builder
		for range 1 + r.IntN(5) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		if p := b.String(); strings.Trim(p, "/") != "" && !strings.Contains(p, "//") {
			return p
		}
	}
}

// FuzzFilter: whatever is accepted can be asked, quickly, and a directory's rule is none of a file.
func FuzzFilter(f *testing.F) {
	for _, rule := range []string{"- *.o", "+ /a/**/b", "- d/***", "- [[:digit:]]", "- [!a-z]*", `- \*?`, "- [a-", "- **/x/", "x", "- [[:no:]]", `- [\]-\a]`, "- a/b", "- /a/b", "- a?c"} {
		for _, path := range []string{"a.o", "a/x/b", "d", "1", "ab/c", "a/b"} {
			f.Add(rule, path)
		}
	}
	f.Fuzz(func(t *testing.T, rule, path string) {
		filter, err := transfer.ParseFilter([]string{rule})
		if err != nil || transfer.CheckName(path) != nil {
			return
		}
		if file, dir := filter.Includes(path, false), filter.Includes(path, true); file != dir {
			require.True(t, strings.HasSuffix(rule, "/") || strings.HasSuffix(rule, "***"), fmt.Sprintf("%q %q", rule, path))
		}
	})
}
