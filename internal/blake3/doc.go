// Package blake3 computes chaining values of BLAKE3 subtrees, sixteen chunks at
// a time where the processor has AVX-512, eight where it has AVX2.
//
//	cv := blake3.Group(&buf, counter)    // of 64 whole chunks
//	node := blake3.Tail(rest, counter)   // of what is left, at most as much
//
// What the processor does not help with is left to package guts of
// lukechampine.com/blake3. That one's own vector code gathers every word of a
// message from sixteen or eight places, which takes about as long as hashing does; this
// one reads lines and transposes them in registers, and hashes about twice as fast.
//
// # What it is not
//
// It is no hash function: package transfer puts the values together.
package blake3
