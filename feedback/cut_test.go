package feedback_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

var cuts = flag.Int("feedback.cuts", 200, "how often TestCutReader cuts its reader")

var errCut = errors.New("cut")

// cutter is a stream that breaks after n bytes, in the middle of whatever it is.
type cutter struct {
	io.Reader
	n int
}

func (c *cutter) Read(p []byte) (int, error) {
	if c.n == 0 {
		return 0, errCut
	}
	n, err := c.Reader.Read(p[:min(len(p), c.n)])
	c.n -= n
	return n, err
}

// serve is a server that shows f.
func serve(t testing.TB, f *feedback.Feed, o feedback.WriterOptions) *httptest.Server {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = f.Stream(r.Context(), feedback.NewWriter(w, o), after, feedback.Hello{ID: "t1"})
	}))
	t.Cleanup(srv.Close)
	return srv
}

// Ten thousand records, read while they are written, over connections that
// are cut two hundred times at random bytes: each record once, in order.
func TestCutReader(t *testing.T) {
	const records = 10_000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	f, _ := newFeed(t, feedback.Options{})
	srv := serve(t, f, feedback.WriterOptions{Padding: 40})
	progress := make(chan int64, 1) // what the reader has
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(progress)
	wg.Go(func() { writeWatched(f, records, progress) })

	rd := feedback.NewReader(strings.NewReader(""), feedback.ReaderOptions{ID: "t1"})
	want, cut, early := int64(1), 0, 0
	for {
		limit := math.MaxInt // no cut
		if cut < *cuts {
			limit = 1 + rng.IntN(2*records*100 / *cuts)
		}
		if _, ok := f.Final(); !ok {
			early++
		}
		err := attachOnce(t, srv, rd, limit, func(rec feedback.Record) error {
			if rec.Seq != 0 {
				require.Equal(t, want, rec.Seq)
				if rec.Kind == feedback.KindLog {
					require.Equal(t, fmt.Sprint("line ", rec.Seq), rec.Body.(*feedback.Log).Text)
				}
				want++
			}
			select {
			case progress <- rd.Last():
			default:
			}
			return nil
		})
		if err == nil {
			break
		}
		require.ErrorIs(t, err, errCut)
		cut++
	}
	require.Equal(t, *cuts, cut, "every cut fell into the stream")
	require.Greater(t, early, *cuts/2, "most attachments were while it was written")
	require.Equal(t, int64(records+2), want)
}

// writeWatched writes n log records, never more than 300 ahead of the reader,
// so that it is read while it is written.
func writeWatched(f *feedback.Feed, n int, progress <-chan int64) {
	var has int64
	for k := range n {
		for int64(k)-has > 300 {
			seq, ok := <-progress
			if !ok {
				return
			}
			has = seq
		}
		f.Log("info", "", fmt.Sprint("line ", k+1))
	}
	_ = f.Finish(nil, nil)
	for range progress {
	}
}

// attachOnce reads one connection, cut after limit bytes.
func attachOnce(t testing.TB, srv *httptest.Server, rd *feedback.Reader, limit int, fn func(feedback.Record) error) error {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprint(srv.URL, "?after=", rd.Last()), nil)
	require.NoError(t, err)
	resp, err := srv.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, feedback.MediaType, resp.Header.Get("Content-Type"))
	rd.Attach(&cutter{resp.Body, limit})
	return rd.Each(fn)
}

var lives = flag.Int("feedback.lives", 2, "how many random lives TestAnyInterleaving lives")

// A random life of a feed: writers, readers that are cut and attach again, and
// acknowledgements, in a journal so small that it is shortened again and again.
// Every reader sees each record once, in order, or a gap; no two see different
// bytes under a number; states are only missing where they were acknowledged.
func TestAnyInterleaving(t *testing.T) {
	for range *lives {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			f, path := newFeed(t, feedback.Options{Max: feedback.MinJournal, Budget: feedback.NewBudget(1 << 20)})
			srv := serve(t, f, feedback.WriterOptions{})
			var shown sync.Map // number → line
			var wg, writers sync.WaitGroup
			for g := range 3 {
				writers.Go(func() { writeAnything(f, rand.New(rand.NewPCG(seed, uint64(g)))) })
			}
			for g := range 3 {
				wg.Go(func() { readAnything(t, f, srv, rand.New(rand.NewPCG(seed, uint64(100+g))), &shown) })
			}
			writers.Wait()
			require.NoError(t, f.Finish(nil, nil))
			wg.Wait()

			before := replay(t, f, 0)
			require.NoError(t, f.Close())
			require.LessOrEqual(t, size(t, path), int64(feedback.MinJournal))
			g, err := feedback.Open(path, feedback.Options{})
			require.NoError(t, err)
			defer g.Close()
			require.Equal(t, before, replay(t, g, 0))
			for _, rec := range records(t, before, feedback.ReaderOptions{}) {
				if line, ok := shown.Load(rec.Seq); ok {
					require.Equal(t, line, string(rec.Line))
				}
			}
		})
	}
}

func writeAnything(f *feedback.Feed, rng *rand.Rand) {
	item := f.Item("item", "fetch", "bytes", -1)
	defer item.End()
	for range 400 {
		item.Add(rng.Int64N(1000))
		switch rng.IntN(10) {
		case 0:
			_ = f.State(fmt.Sprint("s", rng.IntN(20)), rng.Int()) // may be full
		default:
			f.Log("info", "", strings.Repeat("x", rng.IntN(2000)))
		}
	}
}

func readAnything(t *testing.T, f *feedback.Feed, srv *httptest.Server, rng *rand.Rand, shown *sync.Map) {
	rd := feedback.NewReader(strings.NewReader(""), feedback.ReaderOptions{ID: "t1"})
	for {
		limit := 1 + rng.IntN(100_000)
		if rng.IntN(20) == 0 {
			limit = math.MaxInt
		}
		err := attachOnce(t, srv, rd, limit, func(rec feedback.Record) error {
			if rec.Seq == 0 {
				return nil
			}
			if other, loaded := shown.LoadOrStore(rec.Seq, string(rec.Line)); loaded && other != string(rec.Line) {
				return fmt.Errorf("record %d is %s and was %s", rec.Seq, rec.Line, other)
			}
			if rng.IntN(300) == 0 {
				return f.Ack(rng.Int64N(rec.Seq + 1))
			}
			return nil
		})
		if err == nil || errors.Is(err, io.ErrUnexpectedEOF) && rd.Last() == f.Last() {
			return // the final, or it was the last thing before a cut
		}
		if !errors.Is(err, errCut) {
			t.Error(err)
			return
		}
	}
}
