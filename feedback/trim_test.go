package feedback_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

func size(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}

func TestJournalKeepsItsBound(t *testing.T) {
	f, path := newFeed(t, feedback.Options{Max: feedback.MinJournal})
	require.NoError(t, f.State("publishing", map[string]int{"ino": 7}))
	for k := range 3000 {
		f.Log("info", "", fmt.Sprintf("%d %s", k, strings.Repeat("x", 900)))
		if k%100 == 0 {
			require.NoError(t, f.State("running", k))
			require.LessOrEqual(t, size(t, path), int64(feedback.MinJournal))
		}
	}
	require.NoError(t, f.Finish(strings.Repeat("x", feedback.MaxResult-2), nil))
	require.LessOrEqual(t, size(t, path), int64(feedback.MinJournal))

	stream := replay(t, f, 0)
	all := records(t, stream, feedback.ReaderOptions{})
	require.Equal(t, "hello state:1", kinds(all[:2]))
	require.Equal(t, feedback.KindGap, all[2].Kind, "the oldest log lines went")
	require.Equal(t, feedback.WhyTrimmed, all[2].Body.(*feedback.Gap).Why)
	require.Equal(t, feedback.KindLog, all[len(all)-2].Kind, "the newest are there")
	var states, gaps int
	for _, rec := range all {
		switch rec.Kind {
		case feedback.KindState:
			states++
		case feedback.KindGap:
			gaps++
		}
	}
	require.Equal(t, 31, states, "no state went as long as there were logs")
	require.Greater(t, gaps, 10)

	t.Run("a reader in the middle of a gap gets the rest of it", func(t *testing.T) {
		g := all[2].Body.(*feedback.Gap)
		for _, after := range []int64{g.From - 1, g.From, (g.From + g.To) / 2, g.To - 1, g.To} {
			part := records(t, replay(t, f, after), feedback.ReaderOptions{After: after})
			if after < g.To {
				require.Equal(t, feedback.Gap{From: after + 1, To: g.To, Why: feedback.WhyTrimmed}, *part[1].Body.(*feedback.Gap))
				part = part[1:]
			}
			require.Equal(t, string(all[3].Line), string(part[1].Line))
		}
	})
	t.Run("the file opens to the same", func(t *testing.T) {
		require.NoError(t, f.Close())
		g, err := feedback.Open(path, feedback.Options{})
		require.NoError(t, err)
		defer g.Close()
		require.Equal(t, stream, replay(t, g, 0))
	})
}

func TestJournalFullOfWhatMustStay(t *testing.T) {
	f, path := newFeed(t, feedback.Options{Max: feedback.MinJournal, Job: true})
	inner := []byte(stored(1, "log", `,"text":"`+strings.Repeat("x", 40_000)+`"`))
	big := strings.Repeat("x", 30_000)
	var err error
	for k := 0; err == nil && k < 1000; k++ {
		require.NoError(t, f.Task("beta", "0199", inner), "task records make room for states")
		err = f.State(fmt.Sprint("state", k%10), big)
	}
	require.ErrorIs(t, err, feedback.ErrFull)
	require.NoError(t, f.Err(), "full is not broken")
	require.LessOrEqual(t, size(t, path), int64(feedback.MinJournal))
	last := f.Last()
	f.Log("info", "", "dropped")
	require.ErrorIs(t, f.State("more", nil), feedback.ErrFull)
	require.Equal(t, last, f.Last())
	require.NoError(t, f.Finish(strings.Repeat("x", feedback.MaxResult-2), nil), "a final has always room")
	require.LessOrEqual(t, size(t, path), int64(feedback.MinJournal))
	records(t, replay(t, f, 0), feedback.ReaderOptions{})
}

func TestAck(t *testing.T) {
	f, path := newFeed(t, feedback.Options{Max: feedback.MinJournal})
	require.ErrorIs(t, f.Ack(1), feedback.ErrAfter)
	require.NoError(t, f.State("one", nil))
	require.NoError(t, f.State("one", nil))
	for range 50 {
		f.Log("info", "", strings.Repeat("x", 1000))
	}
	require.NoError(t, f.State("two", nil))
	before := size(t, path)
	require.NoError(t, f.Ack(3))
	require.NoError(t, f.State("three", nil))
	require.Greater(t, size(t, path), before, "a small ack is not worth a rewrite")
	require.NoError(t, f.Ack(50))
	require.NoError(t, f.Ack(4), "going back does nothing")
	require.NoError(t, f.State("four", nil)) // waits for the flusher
	require.Less(t, size(t, path), before/4)
	require.NoError(t, f.Finish(nil, nil))
	require.Equal(t, "hello gap:1-1 state:2 gap:3-50 log:51 log:52 state:53 state:54 state:55 result:56",
		kinds(records(t, replay(t, f, 0), feedback.ReaderOptions{})), "the newest of each state stays")
}

func TestReduce(t *testing.T) {
	b := feedback.NewBudget(0)
	f, path := newFeed(t, feedback.Options{Budget: b})
	for range 1000 {
		f.Log("info", "", "some text")
	}
	require.ErrorIs(t, f.Reduce(), feedback.ErrUnfinished)
	require.NoError(t, f.State("publishing", nil))
	require.NoError(t, f.Finish("done", nil))
	require.Equal(t, size(t, path), b.Used())
	require.NoError(t, f.Reduce())
	require.NoError(t, f.Reduce(), "twice")
	require.Less(t, size(t, path), int64(300))
	require.Equal(t, size(t, path), b.Used())
	require.Equal(t, "hello gap:1-1001 result:1002", kinds(records(t, replay(t, f, 0), feedback.ReaderOptions{})))
	require.Equal(t, "hello", kinds(unchecked(t, f, 1002)), "whoever has the final gets nothing more")

	require.NoError(t, f.Close())
	require.Zero(t, b.Used())
	g, err := feedback.Open(path, feedback.Options{Budget: b})
	require.NoError(t, err)
	defer g.Close()
	require.Equal(t, size(t, path), b.Used())
	require.Equal(t, "hello gap:6-1001 result:1002", kinds(records(t, replay(t, g, 5), feedback.ReaderOptions{After: 5})))
	final, ok := g.Final()
	require.True(t, ok)
	require.Equal(t, `"done"`, string(final.Body.(*feedback.Result).Value))
}

// unchecked reads a stream that begins after the final.
func unchecked(t *testing.T, f *feedback.Feed, after int64) []feedback.Record {
	t.Helper()
	var all []feedback.Record
	for rec, err := range feedback.NewReader(strings.NewReader(replay(t, f, after)), feedback.ReaderOptions{After: after}).All() {
		if err == nil {
			all = append(all, rec)
		}
	}
	return all
}

func TestBudget(t *testing.T) {
	const feeds = 4
	b := feedback.NewBudget(feeds*(feedback.MaxTaskLine+200) + 200_000)
	dir := t.TempDir()
	create := func(name string) (*feedback.Feed, error) {
		f, err := feedback.Create(filepath.Join(dir, name), feedback.Options{Budget: b})
		if err == nil {
			t.Cleanup(func() { f.Close() })
		}
		return f, err
	}
	var all []*feedback.Feed
	for k := range feeds {
		f, err := create(fmt.Sprint(k))
		require.NoError(t, err)
		all = append(all, f)
	}
	// The first takes all the room there is; its own old lines go.
	for k := range 2000 {
		all[0].Log("info", "", fmt.Sprintf("%d %s", k, strings.Repeat("x", 1000)))
	}
	require.NoError(t, all[0].State("running", nil), "there is room for a state where logs can go")
	require.LessOrEqual(t, b.Used(), int64(feeds*(feedback.MaxTaskLine+200)+200_000))
	for k := 0; ; k++ {
		if err := all[1].State(fmt.Sprint("s", k), strings.Repeat("x", 10_000)); err != nil {
			require.ErrorIs(t, err, feedback.ErrNoRoom)
			break
		}
	}
	_, err := create("one more")
	require.ErrorIs(t, err, feedback.ErrNoRoom)
	_, err = os.Stat(filepath.Join(dir, "one more"))
	require.ErrorIs(t, err, os.ErrNotExist)

	for _, f := range all {
		require.NoError(t, f.Finish(strings.Repeat("x", feedback.MaxResult-2), nil), "the room for a final was kept")
	}
	last := all[0].Last()
	again, err := create("one more")
	require.NoError(t, err, "finished feeds gave up their logs")
	require.NoError(t, again.State("running", nil))
	require.Equal(t, last, all[0].Last())
	for _, f := range append(all, again) {
		require.NoError(t, f.Close())
	}
	require.Zero(t, b.Used())
}

func TestAFailedTrimBreaksTheFeed(t *testing.T) {
	var broken error
	f, path := newFeed(t, feedback.Options{Max: feedback.MinJournal, OnBroken: func(err error) { broken = err }})
	for range 50 {
		f.Log("info", "", strings.Repeat("x", 1000))
	}
	require.NoError(t, f.State("one", nil))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	// A folder in the place of the file: what is to be shortened cannot be read.
	require.NoError(t, os.Rename(path, path+".away"))
	require.NoError(t, os.Mkdir(path, 0o700))
	require.NoError(t, f.Ack(50))
	require.Error(t, f.State("two", nil))
	require.Error(t, f.Err())
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Rename(path+".away", path))
	require.True(t, errors.Is(f.Close(), broken))
	g, err := feedback.Open(path, feedback.Options{})
	require.NoError(t, err)
	defer g.Close()
	left, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(whole), string(left))
}

func TestFinishedFeedsMakeRoom(t *testing.T) {
	b := feedback.NewBudget(feedback.MaxTaskLine + 250_000)
	o := feedback.Options{Budget: b}
	old, path := newFeed(t, o)
	for range 150 {
		old.Log("info", "", strings.Repeat("x", 1000))
	}
	require.NoError(t, old.State("publishing", nil))
	require.NoError(t, old.Finish("done", nil))
	before := size(t, path)

	f, _ := newFeed(t, o)
	require.Equal(t, before, size(t, path), "there was room without")
	for k := range 4 {
		require.NoError(t, f.State(fmt.Sprint("s", k), strings.Repeat("x", 40_000)))
	}
	require.Less(t, size(t, path), int64(1000), "a finished feed gives up its logs before a running one is refused")
	require.Equal(t, "hello gap:1-150 state:151 result:152", kinds(records(t, replay(t, old, 0), feedback.ReaderOptions{})))
}
