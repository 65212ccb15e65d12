package blake3

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/cpu"
	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// ways runs a test in each way that the processor has.
func ways(t *testing.T, test func(t *testing.T)) {
	have := lanes
	defer func() { lanes = have }()
	for _, way := range []struct {
		name string
		n    int
		has  bool
	}{{"library", 0, true}, {"AVX2", 8, cpu.X86.HasAVX2}, {"AVX-512", 16, cpu.X86.HasAVX512F}} {
		t.Run(way.name, func(t *testing.T) {
			if !way.has || lanesOf(way.n == 16, way.n == 8) != way.n {
				t.Skip("this processor has no " + way.name)
			}
			lanes = way.n
			test(t)
		})
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// TestTail: of every length the root is the one of a library that shares only the
// smallest step with this package.
func TestTail(t *testing.T) {
	data := random(GroupLen)
	ways(t, func(t *testing.T) {
		for n := 0; n <= GroupLen; n++ {
			if n > 4<<10 && n%guts.ChunkSize > 2 && n%guts.ChunkSize < guts.ChunkSize-2 {
				continue
			}
			node := Tail(data[:n:n], 0)
			node.Flags |= guts.FlagRoot
			want := blake3.Sum256(data[:n])
			got := guts.WordsToBytes(guts.CompressNode(node))
			require.True(t, bytes.Equal(want[:], got[:32]), "%d bytes", n)
		}
	})
}

// TestGroup compares groups with chunks hashed one by one, at numbers on both
// sides of 32 bits.
func TestGroup(t *testing.T) {
	data := (*[GroupLen]byte)(random(GroupLen))
	ways(t, func(t *testing.T) {
		for _, counter := range []uint64{0, 64, 4096 * 77, 1<<32 - 64, 1 << 32, 1<<53 - 64} {
			var level []CV
			for i := range GroupChunks {
				level = append(level, guts.ChainingValue(guts.CompressChunk(data[i*guts.ChunkSize:][:guts.ChunkSize], &guts.IV, counter+uint64(i), 0)))
			}
			for ; len(level) > 1; level = level[:len(level)/2] {
				for i := range len(level) / 2 {
					level[i] = guts.ChainingValue(guts.ParentNode(level[2*i], level[2*i+1], &guts.IV, 0))
				}
			}
			require.Equal(t, level[0], Group(data, counter), "from chunk %d", counter)
		}
	})
}

func BenchmarkTail(b *testing.B) {
	data := random(GroupLen)
	have := lanes
	defer func() { lanes = have }()
	for _, n := range []int{4 << 10, GroupLen} {
		for _, lanes = range []int{0, 8, 16} {
			if lanes > have {
				continue
			}
			b.Run(fmt.Sprintf("%d/lanes=%d", n, lanes), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					Tail(data[:n], 64)
				}
			})
		}
	}
}
