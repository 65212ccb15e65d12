package blake3

import (
	"unsafe"

	"golang.org/x/sys/cpu"
	"lukechampine.com/blake3/guts"
)

// wide says that chunks and parents can be called. All their instructions are of
// AVX512F; package cpu asks whether the system keeps the registers, too.
var wide = cpu.X86.HasAVX512F

// compress hashes sixteen lanes at once: lane i reads blocks blocks of 64 bytes
// from in + i*stride on, beginning with the IV. counter and high are the words of
// its counter. All blocks have flags, the first one first, the last one last too.
// It reads 15*stride + 64*blocks bytes of in before it writes to out; the two may be the same.
//
//go:noescape
func compress(out *[lanes]CV, in unsafe.Pointer, stride, blocks uint64, counter *[lanes]uint32, high, flags, first, last uint32)

// chunks hashes whole chunks, the first of which is number counter, a multiple of
// lanes.
func chunks(out *[lanes]CV, in *[blockLen]byte, counter uint64) {
	var low [lanes]uint32
	for i := range low {
		low[i] = uint32(counter) + uint32(i) // no carry: counter is a multiple
	}
	compress(out, unsafe.Pointer(in), guts.ChunkSize, guts.ChunkSize/guts.BlockSize, &low, uint32(counter>>32), 0, guts.FlagChunkStart, guts.FlagChunkEnd)
}

// zero is the counter of every parent.
var zero [lanes]uint32

// parents hashes pairs of neighbours.
func parents(out *[lanes]CV, in *[2 * lanes]CV) {
	compress(out, unsafe.Pointer(in), guts.BlockSize, 1, &zero, 0, guts.FlagParent, 0, 0)
}
