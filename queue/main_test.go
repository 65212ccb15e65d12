package queue_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gantry/api"
	"gantry/internal/testkit"
	"gantry/queue"

	"github.com/stretchr/testify/require"
)

// TestMain runs the tests, or is the process that they kill.
func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv("QUEUE_TEST_RESTORE") != "":
		_, err = queue.Restore(context.Background(), os.Getenv("QUEUE_TEST_FROM"), os.Getenv("QUEUE_TEST_RESTORE"))
	case os.Getenv("QUEUE_TEST_STORE") != "":
		err = child(os.Getenv("QUEUE_TEST_STORE"))
	default:
		testkit.Main(m)
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// newStore returns a store in a folder of its own.
func newStore(t testing.TB) (*queue.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "queue.db")
	return reopen(t, path), path
}

func reopen(t testing.TB, path string) *queue.Store {
	t.Helper()
	s, err := queue.Open(path, queue.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func aJob() queue.Job {
	return queue.Job{
		Kind: "copy", Spec: api.Raw(`{"kind":"copy"}`), Owner: "spiffe://c/operator/ann", Nodes: []string{"alpha", "beta"},
		Limits: []string{"backup"}, Priority: 3, MaxAttempts: 5, NotBefore: time.UnixMicro(1_700_000_000_000_001).UTC(),
	}
}

// each calls fn with 0 to n-1, from several goroutines.
func each(n, goroutines int, fn func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for k := next.Add(1) - 1; k < int64(n); k = next.Add(1) - 1 {
				fn(int(k))
			}
		})
	}
	wg.Wait()
}
