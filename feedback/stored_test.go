package feedback_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// kept is a Journal in memory, as a store would be.
type kept struct {
	mu    sync.Mutex
	lines map[int64][]byte
	last  int64
	fail  error // of the next Append or Trim
}

func newKept() *kept { return &kept{lines: map[int64][]byte{}} }

func (k *kept) Load() (feedback.Held, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := feedback.Held{Last: k.last}
	for _, b := range k.lines {
		h.Bytes += int64(len(b)) + 1
	}
	if b := k.lines[k.last]; bytes.Contains(b, []byte(`"kind":"result"`)) || bytes.Contains(b, []byte(`"kind":"error"`)) {
		h.Final = b
	}
	return h, nil
}

func (k *kept) Append(seq int64, lines [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	if seq != k.last+1 {
		return fmt.Errorf("%d follows %d", seq, k.last)
	}
	for i, b := range lines {
		k.last = seq + int64(i)
		k.lines[k.last] = bytes.Clone(b)
	}
	return nil
}

func (k *kept) Read(seq int64, max int, fn func(int64, []byte) error) (int64, error) {
	k.mu.Lock()
	last := k.last
	var seqs []int64
	var lines [][]byte
	for ; seq <= last && max > 0; seq++ {
		if b, ok := k.lines[seq]; ok {
			seqs, lines, max = append(seqs, seq), append(lines, b), max-len(b)-1
		}
	}
	k.mu.Unlock()
	for i := range seqs {
		if err := fn(seqs[i], lines[i]); err != nil {
			return 0, err
		}
	}
	return seq, nil
}

func (k *kept) Trim(seqs []int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, seq := range seqs {
		delete(k.lines, seq)
	}
	return k.fail
}

func (k *kept) bytes() int64 {
	h, _ := k.Load()
	return h.Bytes
}

func openKept(t testing.TB, k *kept, o feedback.Options) *feedback.Feed {
	t.Helper()
	f, err := feedback.OpenJournal(k, o)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestStoredFeedIsLikeOneInAFile(t *testing.T) {
	k := newKept()
	f := openKept(t, k, feedback.Options{ID: "t1", Job: true})
	require.ErrorIs(t, f.Stream(t.Context(), nil, 1, feedback.Hello{}), feedback.ErrAfter)
	require.NoError(t, f.State("running", map[string]int{"attempt": 1}))
	for n := range 300 {
		f.Log("info", "", fmt.Sprint("line ", n, strings.Repeat("x", 500)))
	}
	require.NoError(t, f.Task("beta", "0199", []byte(stored(7, "state", `,"state":"running"`))))
	require.Equal(t, int64(302), f.Last())
	require.NoError(t, f.Close())

	f = openKept(t, k, feedback.Options{ID: "t1", Job: true})
	require.Equal(t, int64(302), f.Last())
	require.NoError(t, f.Finish("the end", nil))
	require.ErrorIs(t, f.State("more", nil), feedback.ErrFinished)
	stream := replay(t, f, 0)
	all := records(t, stream, feedback.ReaderOptions{ID: "t1"})
	require.Len(t, all, 304)
	require.Equal(t, "hello task:302 result:303", kinds(append(all[:1:1], all[302:]...)))
	for after := range int64(303) {
		part := records(t, replay(t, f, after), feedback.ReaderOptions{ID: "t1", After: after})
		require.Len(t, part, 304-int(after))
	}
	require.NoError(t, f.Close())
	g := openKept(t, k, feedback.Options{ID: "t1", Job: true})
	<-g.Done()
	require.Equal(t, stream, replay(t, g, 0))

	require.NoError(t, g.Reduce())
	short := records(t, replay(t, g, 0), feedback.ReaderOptions{ID: "t1"})
	require.Equal(t, feedback.Gap{From: 1, To: 302, Why: feedback.WhyTrimmed}, *short[1].Body.(*feedback.Gap))
	require.Equal(t, feedback.KindResult, short[2].Kind)
	require.Len(t, k.lines, 1)
}

func TestStoredFeedKeepsItsBound(t *testing.T) {
	k := newKept()
	f := openKept(t, k, feedback.Options{Max: feedback.MinJournal})
	require.NoError(t, f.State("publishing", map[string]int{"ino": 7}))
	for n := range 2000 {
		f.Log("info", "", fmt.Sprintf("%d %s", n, strings.Repeat("x", 900)))
		if n%100 == 0 {
			require.NoError(t, f.State("running", n))
			require.LessOrEqual(t, k.bytes(), int64(feedback.MinJournal))
		}
	}
	require.NoError(t, f.Finish(strings.Repeat("x", feedback.MaxResult-2), nil))
	require.LessOrEqual(t, k.bytes(), int64(feedback.MinJournal))
	stream := replay(t, f, 0)
	all := records(t, stream, feedback.ReaderOptions{})
	require.Equal(t, "hello state:1", kinds(all[:2]))
	g := all[2].Body.(*feedback.Gap)
	for _, after := range []int64{g.From - 1, g.From, (g.From + g.To) / 2, g.To - 1, g.To} {
		part := records(t, replay(t, f, after), feedback.ReaderOptions{After: after})
		if after < g.To {
			require.Equal(t, feedback.Gap{From: after + 1, To: g.To, Why: feedback.WhyTrimmed}, *part[1].Body.(*feedback.Gap))
			part = part[1:]
		}
		require.Equal(t, string(all[3].Line), string(part[1].Line))
	}
}

// What was stored last may be gone too, and its number is not used again.
func TestStoredFeedWhoseEndIsGone(t *testing.T) {
	k := newKept()
	f := openKept(t, k, feedback.Options{})
	for range 4 {
		require.NoError(t, f.State("running", nil))
	}
	delete(k.lines, 3)
	delete(k.lines, 4)
	require.NoError(t, f.Close())
	f = openKept(t, k, feedback.Options{})
	var seen []string
	for rec, err := range f.Records(1) {
		require.NoError(t, err)
		seen = append(seen, kinds([]feedback.Record{rec}))
	}
	require.Equal(t, []string{"state:2", "gap:3-4"}, seen)
	require.NoError(t, f.State("again", nil))
	require.Equal(t, int64(5), f.Last())
}

func TestStoredFeedBreaksWithItsStore(t *testing.T) {
	boom := errors.New("the store broke")
	k := newKept()
	var told []error
	f := openKept(t, k, feedback.Options{OnBroken: func(err error) { told = append(told, err) }})
	require.NoError(t, f.State("running", nil))
	k.mu.Lock()
	k.fail = boom
	k.mu.Unlock()
	require.ErrorIs(t, f.State("running", nil), boom)
	k.mu.Lock()
	k.fail = nil
	k.mu.Unlock()
	require.ErrorIs(t, f.State("running", nil), boom, "it sticks")
	require.ErrorIs(t, f.Close(), boom)
	require.Len(t, told, 1)
	require.Equal(t, int64(1), k.last)

	k = newKept()
	f = openKept(t, k, feedback.Options{})
	require.NoError(t, f.Finish(1, nil))
	k.fail = boom
	require.NoError(t, f.Reduce(), "there is nothing to delete")
	require.NoError(t, f.Close())
}

// A record that is on disk, and not shown yet, is no fault to who reads those
// before it.
func TestStoredFeedIsReadWhileARecordIsStored(t *testing.T) {
	held := &holdingUp{kept: newKept(), stored: make(chan struct{}), goOn: make(chan struct{})}
	f, err := feedback.OpenJournal(held, feedback.Options{})
	require.NoError(t, err)
	goOn := sync.OnceFunc(func() { close(held.goOn) })
	t.Cleanup(func() { goOn(); f.Close() })
	f.Log("info", "", "one")
	<-held.stored
	held.goOn <- struct{}{}
	require.Eventually(t, func() bool { return f.Last() == 1 }, 10*time.Second, time.Millisecond)
	f.Log("info", "", "two")
	<-held.stored
	seen := 0
	for rec, err := range f.Records(0) {
		require.NoError(t, err)
		require.Equal(t, int64(1), rec.Seq)
		seen++
	}
	require.Equal(t, 1, seen)
	goOn()
}

// holdingUp is a journal that says when it has stored lines, and waits before it
// returns.
type holdingUp struct {
	*kept
	stored, goOn chan struct{}
}

func (h *holdingUp) Append(seq int64, lines [][]byte) error {
	err := h.kept.Append(seq, lines)
	h.stored <- struct{}{}
	<-h.goOn
	return err
}

func TestStoredFeedThatIsDamaged(t *testing.T) {
	for name, held := range map[string]feedback.Held{
		"a final that is no record":   {Last: 1, Bytes: 3, Final: []byte(`{}`)},
		"a final that is a log":       {Last: 1, Bytes: 3, Final: []byte(logLine(1))},
		"a final with another number": {Last: 2, Bytes: 3, Final: []byte(stored(1, "result", `,"value":1`))},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := feedback.OpenJournal(holding{newKept(), held}, feedback.Options{})
			require.Error(t, err)
		})
	}
}

type holding struct {
	*kept
	held feedback.Held
}

func (h holding) Load() (feedback.Held, error) { return h.held, nil }
