package transfer

import (
	"hash/maphash"
	"slices"
)

// pathSet holds the hashes of paths: 8 bytes each. Two paths of the same hash
// (one pair in 10^13 at a million) make a file of the target count as one of the
// source's: it is kept.
// They lie in shards by their first byte: one list of a million doubles its
// memory each time that it grows.
type pathSet struct {
	seed   maphash.Seed
	shards [256][]uint64
	count  int64
	sorted bool
}

func (s *pathSet) add(p string) {
	if s.count == 0 {
		s.seed = maphash.MakeSeed()
	}
	h := maphash.String(s.seed, p)
	s.shards[h>>56] = append(s.shards[h>>56], h)
	s.count++
	s.sorted = false
}

func (s *pathSet) has(p string) bool {
	if s.count == 0 {
		return false
	}
	if !s.sorted {
		for _, shard := range s.shards {
			slices.Sort(shard)
		}
		s.sorted = true
	}
	h := maphash.String(s.seed, p)
	_, ok := slices.BinarySearch(s.shards[h>>56], h)
	return ok
}
