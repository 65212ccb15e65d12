package node

import (
	"path/filepath"

	"gantry/transfer"
)

// What the node computed and can compute again, in its dir: removing the folder
// while the node is stopped costs time and nothing else.
const (
	cacheName = "cache"
	// cacheBytes is room for the values of 26 TB of files.
	cacheBytes = 256 << 20
)

// openCache opens the cache; a node works without one, too.
func (n *Node) openCache() {
	c, err := transfer.OpenCache(filepath.Join(n.folder.path, cacheName), cacheBytes)
	if err != nil {
		n.log.Warn("nothing that is computed is kept", "err", err)
		return
	}
	n.cache = c
}
