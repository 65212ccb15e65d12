package feedback_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"gantry/feedback"

	"github.com/stretchr/testify/require"
)

var kills = flag.Int("feedback.kills", 24, "how often TestKilledWriter kills its writer")

// pipeReply is a reply whose reader is the other end of a pipe.
type pipeReply struct {
	io.Writer
	header http.Header
}

func (p pipeReply) Header() http.Header { return p.header }
func (p pipeReply) WriteHeader(int)     {}
func (p pipeReply) FlushError() error   { return nil }

// writerChild goes on with the journal at path: several goroutines write to it
// while its stream goes to standard output. FEEDBACK_TEST_AFTER says from
// where, FEEDBACK_TEST_FINISH that it should come to an end.
func writerChild(path string) error {
	o := feedback.Options{}
	padding := 0
	if os.Getenv("FEEDBACK_TEST_SMALL") != "" {
		o.Max, padding = feedback.MinJournal, 2000 // so that it is shortened
	}
	f, err := feedback.Open(path, o)
	if errors.Is(err, os.ErrNotExist) {
		f, err = feedback.Create(path, o)
	}
	if err != nil {
		return err
	}
	after, err := strconv.ParseInt(os.Getenv("FEEDBACK_TEST_AFTER"), 10, 64)
	if err != nil {
		return err
	}
	finish := os.Getenv("FEEDBACK_TEST_FINISH") != ""
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for k := range 150 {
				f.Log("info", "", fmt.Sprintf("process %d, writer %d, line %d %s", os.Getpid(), g, k, strings.Repeat("x", k%300+padding)))
				if k%7 == 0 && f.State(fmt.Sprint("step", g), os.Getpid()) != nil {
					return
				}
			}
		})
	}
	var end sync.WaitGroup
	if finish {
		end.Go(func() {
			wg.Wait()
			_ = f.Finish("the end", nil) // the stream tells
		})
	}
	w := feedback.NewWriter(pipeReply{os.Stdout, http.Header{}}, feedback.WriterOptions{})
	if err := f.Stream(context.Background(), w, after, feedback.Hello{ID: "t1"}); err != nil {
		return err
	}
	wg.Wait()
	end.Wait()
	return f.Close()
}

// What a killed writer had shown is in its journal, with the same bytes, and
// whoever attaches again sees every record once.
func TestKilledWriter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	f, path := newFeed(t, feedback.Options{})
	require.NoError(t, f.Close())
	exe, err := os.Executable()
	require.NoError(t, err)

	var seen []string // by number - 1
	rd := feedback.NewReader(strings.NewReader(""), feedback.ReaderOptions{ID: "t1"})
	run := func(lines int, finish string) error {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "FEEDBACK_TEST_JOURNAL="+path,
			fmt.Sprint("FEEDBACK_TEST_AFTER=", rd.Last()), "FEEDBACK_TEST_FINISH="+finish)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		rd.Attach(out)
		err = rd.Each(func(rec feedback.Record) error {
			if rec.Seq > 0 {
				require.Equal(t, int64(len(seen)+1), rec.Seq)
				seen = append(seen, string(rec.Line))
			}
			if lines--; lines == 0 {
				return cmd.Process.Kill() // and read what is still in the pipe
			}
			return nil
		})
		werr := cmd.Wait()
		if finish != "" {
			require.NoError(t, werr)
		}
		return err
	}
	for range *kills {
		require.ErrorIs(t, run(1+rng.IntN(300), ""), io.ErrUnexpectedEOF)
		g, err := feedback.Open(path, feedback.Options{})
		require.NoError(t, err)
		inFile := 0
		for rec, err := range g.Records(0) {
			require.NoError(t, err)
			if inFile++; inFile <= len(seen) {
				require.Equal(t, seen[rec.Seq-1], string(rec.Line), "shown, then changed")
			}
		}
		require.GreaterOrEqual(t, inFile, len(seen), "shown, then lost")
		require.NoError(t, g.Close())
	}
	require.NoError(t, run(-1, "yes"))
	require.Contains(t, seen[len(seen)-1], `"kind":"result"`)
	t.Logf("%d kills, %d records, each seen once", *kills, len(seen))
}
