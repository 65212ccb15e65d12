package feedback_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

// quietWriter is a reply that costs nothing, so that what is measured is the
// feed's.
type quietWriter struct{ flushed chan struct{} }

func (quietWriter) Header() http.Header           { return http.Header{} }
func (quietWriter) WriteHeader(int)               {}
func (q quietWriter) Write(p []byte) (int, error) { return len(p), nil }
func (q quietWriter) FlushError() error {
	q.flushed <- struct{}{}
	return nil
}

// idle makes n feeds with one reader each and returns what each costs, in bytes.
func idle(t testing.TB, n int) float64 {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	before := memory()
	feeds := make([]*feedback.Feed, n)
	for k := range feeds {
		f, err := feedback.Create(filepath.Join(dir, fmt.Sprint(k)), feedback.Options{ID: "t1"})
		require.NoError(t, err)
		defer f.Close()
		feeds[k] = f
		for i := range 3 {
			f.Item(fmt.Sprint("item", i), "fetch", "bytes", 100)
		}
		f.Log("info", "", strings.Repeat("x", 500))
		require.NoError(t, f.State("running", nil))
		flushed := make(chan struct{}, 16)
		wg.Go(func() {
			_ = f.Stream(ctx, feedback.NewWriter(quietWriter{flushed}, feedback.WriterOptions{}), 0, feedback.Hello{ID: "t1"})
		})
		for range 1 + 3 + 2 { // hello, progress, records
			<-flushed
		}
	}
	each := float64(memory()-before) / float64(n)
	runtime.KeepAlive(feeds)
	return each
}

// memory is what the process uses now: heap after a collection, and stacks.
func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func TestMemoryOfAnIdleFeed(t *testing.T) {
	each := idle(t, 200)
	t.Logf("%.0f bytes per feed with one reader", each)
	require.Less(t, each, 64.0*1024)
}

func BenchmarkIdleFeed(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(idle(b, 1000), "bytes/feed")
	}
}

// BenchmarkStoredLine is the time from State to the reader's flush: one fsync
// and what we add to it.
func BenchmarkStoredLine(b *testing.B) {
	f, _ := newFeed(b, feedback.Options{})
	flushed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	go func() {
		defer close(ended)
		_ = f.Stream(ctx, feedback.NewWriter(quietWriter{flushed}, feedback.WriterOptions{}), 0, feedback.Hello{ID: "t1"})
	}()
	<-flushed
	for b.Loop() {
		if err := f.State("running", nil); err != nil {
			b.Fatal(err)
		}
		<-flushed
	}
}

// BenchmarkGroupCommit is how many states a feed stores when many goroutines
// wait for the disk.
func BenchmarkGroupCommit(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			f, _ := newFeed(b, feedback.Options{})
			var wg sync.WaitGroup
			next := make(chan struct{})
			for range writers {
				wg.Go(func() {
					for range next {
						if err := f.State("running", nil); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				next <- struct{}{}
			}
			close(next)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkLog is what a log line costs its caller.
func BenchmarkLog(b *testing.B) {
	f, _ := newFeed(b, feedback.Options{})
	b.ReportAllocs()
	for b.Loop() {
		f.Log("info", "vm1.img", "connection lost, retry in 0.5 s")
	}
}

// BenchmarkDecode is what a line costs its reader.
func BenchmarkDecode(b *testing.B) {
	line := []byte(logLine(7))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := feedback.Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
