//go:build !amd64

package blake3

// lanes is how many chunks, or pairs of values, are hashed at once: chunks and
// parents must not be called.
var lanes = 0

func lanesOf(avx512, avx2 bool) int { return 0 }

func chunks(out []CV, in []byte, counter uint64) {}

func parents(out, in []CV) {}
