package transfer_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

// TestTreeWrong: what arrives wrong three times is read again at its source, and
// the guilty side is named; one wrong answer costs one more request.
func TestTreeWrong(t *testing.T) {
	same := func(line string) string { return line }
	other := func(line string) string {
		return strings.NewReplacer(sum([]byte("bravo")), sum([]byte("BRAVO"))).Replace(line)
	}
	flip := func(off int64, each bool) func(int64, []byte) {
		var mu sync.Mutex
		n := byte(0)
		return func(at int64, b []byte) {
			mu.Lock()
			defer mu.Unlock()
			if k := off - at; k >= 0 && k < int64(len(b)) {
				if n++; !each {
					n = 1
				}
				b[k] ^= n
			}
		}
	}
	for _, c := range []struct {
		name   string
		off    int64
		each   bool
		rehash func(string) string
		code   *api.Code
		text   string
	}{
		{"changed at the source", 5, false, other, api.SourceChanged, `"b" reads otherwise`},
		{"the source is at fault", 5, false, same, api.CorruptPiece, `"b": the source confirms its value but sends the same other bytes`},
		{"the way is at fault", 5, true, same, api.CorruptPiece, `"b": the source confirms its value but other bytes arrive every time`},
		{"a piece", 10 + piece + 3, true, same, api.CorruptPiece, `piece 1 of "c": the source confirms`},
		{"not confirmed", 5, true, nil, api.BadRange, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{}
			s.file("a", "alpha")
			s.file("b", "bravo")
			s.bigFile("c", content(3, 3*piece+17))
			s.tamper, s.rehash = flip(c.off, c.each), c.rehash
			g := newTree(t)
			m := g.imp(s)
			_, err := m.Run(t.Context())
			requireCode(t, c.code, err)
			require.Contains(t, err.Error(), c.text)
			g.nothing(t)
			require.NoError(t, m.Discard())
		})
	}
}

// abreast lets content go on when so many requests wait for it.
type abreast struct {
	*script
	mu         sync.Mutex
	open, most int
	want       int
	all        chan struct{}
	once       sync.Once
}

type leaving struct {
	io.ReadCloser
	a *abreast
}

func (c leaving) Close() error {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	c.a.open--
	return c.ReadCloser.Close()
}

func (a *abreast) Content(ctx context.Context, off, length int64) (io.ReadCloser, error) {
	a.mu.Lock()
	a.open++
	if a.most = max(a.most, a.open); a.open == a.want {
		a.once.Do(func() { close(a.all) })
	}
	a.mu.Unlock()
	select {
	case <-a.all:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	rc, err := a.script.Content(ctx, off, length)
	return leaving{rc, a}, err
}

// TestTreeParallel: as many requests at once as are asked for.
func TestTreeParallel(t *testing.T) {
	for _, n := range []int{1, 4, 9} {
		s := &script{}
		for _, name := range []string{"a", "b", "c"} {
			s.bigFile(name, content(3, 12*piece))
		}
		a := &abreast{script: s, want: n, all: make(chan struct{})}
		m := newTree(t).imp(a)
		m.Parallel = n
		_, err := m.Run(t.Context())
		require.NoError(t, err)
		require.Equal(t, n, a.most)
		require.NoError(t, m.Discard())
	}
}
