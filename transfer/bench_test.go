package transfer_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkImport is a whole import without a network: hashing at both ends,
// buffered writes, syncs and the rename. It reports memory per import too.
func BenchmarkImport(b *testing.B) {
	one := content(1, piece)
	data := make([]byte, 0, 64*piece)
	for i := range 64 {
		data = append(data, one...)
		data[i*piece] = byte(i)
	}
	x := export(b, data)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		g := newTarget(b)
		_, err := g.imp(direct{x}).Run(context.Background())
		require.NoError(b, err)
	}
}
