package nodeset_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/nodeset"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var known = nodeset.Known{
	Nodes:  []string{"n1", "n2", "n3", "n4", "n5", "n01", "n02", "mx-a", "mx-b", "r1n1", "r1n2", "r2n1", "r2n2"},
	Groups: map[string][]string{"mail": {"mx-a", "mx-b"}, "all.n": {"n1", "n2", "n3", "n4", "n5"}},
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"n1":                 "n1",
		"n1,n2,n1":           "n1 n2",
		"n[1-3]":             "n1 n2 n3",
		"n[3,1-2]":           "n3 n1 n2",
		"n[01-02]":           "n01 n02",
		"n[1-5/2]":           "n1 n3 n5",
		"n[1-5/3]":           "n1 n4",
		"r[1-2]n[1-2]":       "r1n1 r1n2 r2n1 r2n2",
		"@mail":              "mx-a mx-b",
		"@mail, n1":          "mx-a mx-b n1",
		"@all.n,!n[2-4]":     "n1 n5",
		"!n1,n[1-2]":         "n2",
		"@all.n,!@all.n,n01": "n01",
		"n[1-5],!@mail":      "n1 n2 n3 n4 n5",
	} {
		got, err := nodeset.Parse(text, known)
		require.NoError(t, err, text)
		require.Equal(t, want, strings.Join(got, " "), text)
	}
	for _, all := range []string{"*", "@*"} {
		got, err := nodeset.Parse(all, known)
		require.NoError(t, err)
		require.Equal(t, known.Nodes, got)
	}
	got, err := nodeset.Parse("n[08-11],n[98-101],n[098-101]", nodeset.Known{})
	require.NoError(t, err)
	require.Equal(t, "n08 n09 n10 n11 n98 n99 n100 n101 n098 n099", strings.Join(got, " "), "padding goes over its own width, and without it there is none")
}

// Each is refused in one line that says what to do.
func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "a name is missing",
		"n1,,n2":                                 "a name is missing",
		"!":                                      "a name is missing",
		"!n1":                                    "it only leaves out; write *,!n1",
		"n1,!n1":                                 "leaves out every node",
		"n[1-3":                                  "not closed",
		"n1-3]":                                  "not opened",
		"n[[1]]":                                 "inside brackets",
		"n[]":                                    "no range of numbers",
		"n[a-b]":                                 "no range of numbers",
		"n[1-2-3]":                               "no range of numbers",
		"n[1/2]":                                 "no range of numbers",
		"n[1-5/]":                                "no range of numbers",
		"n[-1]":                                  "no range of numbers",
		"n[1-5/0]":                               "step of 0",
		"n[5-1]":                                 "runs backwards",
		"n[01-5]":                                "different numbers of digits",
		"n[1-010]":                               "different numbers of digits",
		"n[1-9999999999]":                        "no range of numbers",
		"n[1-999999999]":                         "more than 4096 nodes",
		"n[1-100]x[1-100]":                       "more than 4096 nodes",
		"n[1-4000],m[1-4000]":                    `more than 4096 nodes`,
		"N1":                                     "no name of a node",
		"n 1":                                    "no name of a node",
		"-n1":                                    "no name of a node",
		"n..1":                                   "no name of a node",
		"n\x1b1m":                                `\x1b`,
		strings.Repeat("a", 65):                  "no name of a node",
		strings.Repeat("n1,", 30_000):            "more than 65536",
		"n[" + strings.Repeat("1,", 5000) + "1]": "more than 4096 nodes",
		"n[1-2],*":                               "all nodes are not known here",
	} {
		_, err := nodeset.Parse(text, nodeset.Known{})
		require.ErrorContains(t, err, want, "%.40q", text)
		require.NotContains(t, err.Error(), "\n")
		require.NotContains(t, err.Error(), "\x1b")
		require.Less(t, len(err.Error()), 400)
		require.False(t, errors.Is(err, nodeset.ErrUnknown))
	}
	for text, want := range map[string]string{
		"n9":     `there is no node "n9"; the cluster has`,
		"n[1-9]": `there is no node "n6"`,
		"@web":   "no such group; there are @all.n, @mail",
		"n1,!n9": `there is no node "n9"`,
	} {
		_, err := nodeset.Parse(text, known)
		require.ErrorContains(t, err, want, text)
		require.ErrorIs(t, err, nodeset.ErrUnknown)
	}
	_, err := nodeset.Parse("@web", nodeset.Known{})
	require.ErrorContains(t, err, "no [[group]]")
}

func TestFold(t *testing.T) {
	for names, want := range map[string]string{
		"":                        "",
		"n1":                      "n1",
		"n1 n2 n3 n7":             "n[1-3,7]",
		"n2 n1 n1":                "n[1-2]",
		"n1 n2 n10 n9":            "n[1-2,9-10]",
		"n01 n02 n10":             "n[01-02,10]",
		"n08 n09 n10 n11":         "n[08-11]",
		"n1 n01 n2 n02":           "n[01-02,1-2]",
		"alpha beta":              "alpha,beta",
		"r1n1 r1n2 r2n1 r2n2":     "r[1-2]n[1-2]",
		"r1n1 r1n2 r2n1":          "r1n[1-2],r2n1",
		"a1b b2 a2b":              "a[1-2]b,b2",
		"7 8 9":                   "[7-9]",
		"n9999999999 n9999999998": "n9999999998,n9999999999",
		"n999999999":              "n999999999",
		"n99 n100 n101":           "n[99-101]",
		"n1.x2 n1.x3":             "n1.x[2-3]",
	} {
		require.Equal(t, want, nodeset.Fold(strings.Fields(names)), names)
	}
}

// What is folded means the same set, whatever the names: no name is lost, none
// is made up.
func TestFoldedSetsAreTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var names []string
		for range 1 + rng.IntN(40) {
			form := []string{"n%d", "n%02d", "n%03d", "r%dn1", "r1n%02d", "a%d.b%[1]d", "x"}[rng.IntN(7)]
			name := form
			if strings.Contains(form, "%") {
				name = fmt.Sprintf(form, rng.IntN(120))
			}
			names = append(names, name)
		}
		same(t, names)
	}
}

func same(t *testing.T, names []string) {
	t.Helper()
	text := nodeset.Fold(names)
	got, err := nodeset.Parse(text, nodeset.Known{})
	require.NoError(t, err, text)
	want := slices.Compact(slices.Sorted(slices.Values(names)))
	slices.Sort(got)
	require.Equal(t, want, got, text)
	require.Equal(t, text, nodeset.Fold(got), "folded again it looks the same")
}

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range []nodeset.Known{{}, known} {
			names, err := nodeset.Parse(text, k)
			if err != nil {
				var e *nodeset.Error
				require.ErrorAs(t, err, &e)
				require.NotContains(t, err.Error(), "\n")
				require.Empty(t, names)
				continue
			}
			require.NotEmpty(t, names)
			require.LessOrEqual(t, len(names), nodeset.MaxNodes)
			for _, n := range names {
				require.True(t, k.Nodes == nil || slices.Contains(k.Nodes, n), n)
			}
			if len(nodeset.Fold(names)) <= nodeset.MaxText {
				same(t, names)
			}
		}
	})
}
