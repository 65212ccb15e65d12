//go:build !amd64

package blake3

// wide says that chunks and parents can be called: they cannot.
var wide = false

func chunks(*[lanes]CV, *[blockLen]byte, uint64) {}

func parents(*[lanes]CV, *[2 * lanes]CV) {}
