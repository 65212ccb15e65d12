package blake3

import (
	"unsafe"

	"golang.org/x/sys/cpu"
	"lukechampine.com/blake3/guts"
)

// lanes is how many chunks, or pairs of values, are hashed at once; 0 says that
// chunks and parents must not be called. Package cpu asks whether the system keeps
// the registers, too.
var lanes = lanesOf(cpu.X86.HasAVX512F, cpu.X86.HasAVX2)

func lanesOf(avx512, avx2 bool) int {
	switch {
	case avx512:
		return 16
	case avx2:
		return 8
	}
	return 0
}

// compress16 hashes sixteen lanes at once: lane i reads blocks blocks of 64 bytes
// from in + i*stride on, beginning with the IV. counter points to the low words of
// their counters, high is the other word. All blocks have flags, the first one first, the last
// one last too. It reads 15*stride + 64*blocks bytes of in before it writes sixteen
// values to out; the two may be the same. All its instructions are of AVX512F.
//
//go:noescape
func compress16(out *CV, in *byte, stride, blocks uint64, counter *uint32, high, flags, first, last uint32)

// compress8 is compress16 for eight lanes. All its instructions are of AVX2.
//
//go:noescape
func compress8(out *CV, in *byte, stride, blocks uint64, counter *uint32, high, flags, first, last uint32)

// compress is the one that this processor has, for out of as many values as there are
// lanes at least.
func compress(out []CV, in *byte, stride, blocks uint64, counter *[maxLanes]uint32, high, flags, first, last uint32) {
	_ = out[lanes-1]
	if lanes == 16 {
		compress16(&out[0], in, stride, blocks, &counter[0], high, flags, first, last)
	} else {
		compress8(&out[0], in, stride, blocks, &counter[0], high, flags, first, last)
	}
}

// chunks hashes as many whole chunks as there are lanes, the first of which is
// number counter, a multiple of lanes.
func chunks(out []CV, in []byte, counter uint64) {
	_ = in[lanes*guts.ChunkSize-1]
	var low [maxLanes]uint32
	for i := range low {
		low[i] = uint32(counter) + uint32(i) // no carry: counter is a multiple
	}
	compress(out, &in[0], guts.ChunkSize, guts.ChunkSize/guts.BlockSize, &low, uint32(counter>>32), 0, guts.FlagChunkStart, guts.FlagChunkEnd)
}

// zero is the counter of every parent.
var zero [maxLanes]uint32

// parents hashes as many pairs of neighbours as there are lanes.
func parents(out, in []CV) {
	_ = in[2*lanes-1]
	words := (*byte)(unsafe.Pointer(&in[0])) // in memory as BLAKE3 has them
	compress(out, words, guts.BlockSize, 1, &zero, 0, guts.FlagParent, 0, 0)
}
