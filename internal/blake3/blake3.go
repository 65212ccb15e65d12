package blake3

import (
	"sync"

	"lukechampine.com/blake3/guts"
)

const (
	// GroupChunks is how many chunks Group hashes.
	GroupChunks = 64
	// GroupLen is their length in bytes.
	GroupLen = GroupChunks * guts.ChunkSize
	// maxLanes is the most chunks, or pairs of values, that are hashed at once.
	maxLanes = guts.MaxSIMD
)

// CV is a chaining value.
type CV = [8]uint32

// Group returns the chaining value of the subtree of buf, whose first chunk is
// number counter of the file, a multiple of GroupChunks. It must not be the
// whole file: the root has a flag of its own. Calls may be concurrent.
func Group(buf *[GroupLen]byte, counter uint64) CV { return guts.ChainingValue(Tail(buf[:], counter)) }

// Tail returns the topmost node of the subtree of buf, at most GroupLen bytes,
// so that the caller can give it the root flag. The first chunk is number
// counter of the file, a multiple of GroupChunks. Calls may be concurrent.
func Tail(buf []byte, counter uint64) guts.Node {
	if len(buf) <= guts.ChunkSize {
		return guts.CompressChunk(buf, &guts.IV, counter, 0)
	}
	var cvs [GroupChunks]CV
	if lanes == 0 {
		return narrow(&cvs, buf, counter)
	}
	n, unit := 0, lanes*guts.ChunkSize
	for ; len(buf) >= unit; n += lanes {
		chunks(cvs[n:], buf, counter+uint64(n))
		buf = buf[unit:]
	}
	if whole := len(buf) / guts.ChunkSize; whole > 0 { // the other lanes hash what was there before
		block := blocks.Get().(*[maxLanes * guts.ChunkSize]byte)
		copy(block[:], buf[:whole*guts.ChunkSize])
		chunks(cvs[n:], block[:], counter+uint64(n))
		blocks.Put(block)
		n, buf = n+whole, buf[whole*guts.ChunkSize:]
	}
	if len(buf) > 0 {
		cvs[n] = guts.ChainingValue(guts.CompressChunk(buf, &guts.IV, counter+uint64(n), 0))
		n++
	}
	return merge(&cvs, n)
}

// blocks are for the chunks of small files: clearing a fresh one each time would take
// as long as hashing them.
var blocks = sync.Pool{New: func() any { return new([maxLanes * guts.ChunkSize]byte) }}

// merge combines n values, at least two, level by level; an odd last one moves
// up as it is, which gives the tree of the specification.
func merge(cvs *[GroupChunks]CV, n int) guts.Node {
	for n > 2 {
		pairs, odd := n/2, cvs[n-1]
		for i := 0; i < pairs; i += lanes { // what is written was read before
			parents(cvs[i:], cvs[2*i:])
		}
		if n%2 == 1 {
			cvs[pairs] = odd
		}
		n = pairs + n%2
	}
	return guts.ParentNode(cvs[0], cvs[1], &guts.IV, 0)
}

// narrow is Tail by package guts alone.
func narrow(cvs *[GroupChunks]CV, buf []byte, counter uint64) guts.Node {
	var block [maxLanes * guts.ChunkSize]byte // guts reads all of one
	n := 0
	for ; ; n++ {
		k := copy(block[:], buf)
		node := guts.CompressBuffer(&block, k, &guts.IV, counter+uint64(n*maxLanes), 0)
		if buf = buf[k:]; n == 0 && len(buf) == 0 {
			return node
		}
		cvs[n] = guts.ChainingValue(node)
		if len(buf) == 0 {
			break
		}
	}
	for n++; n > 2; n = n/2 + n%2 {
		for i := range n / 2 {
			cvs[i] = guts.ChainingValue(guts.ParentNode(cvs[2*i], cvs[2*i+1], &guts.IV, 0))
		}
		if n%2 == 1 {
			cvs[n/2] = cvs[n-1]
		}
	}
	return guts.ParentNode(cvs[0], cvs[1], &guts.IV, 0)
}
