package queue_test

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"gantry/queue"

	"github.com/stretchr/testify/require"
)

const (
	logHead = 32
	frame   = 24 + 512
)

func flipped(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 16
	return b
}

func TestLog(t *testing.T) {
	little, big := queue.MakeLog(5, binary.LittleEndian, 7), queue.MakeLog(5, binary.BigEndian, 7)
	older := queue.MakeLog(9, binary.LittleEndian, 6)
	for name, c := range map[string]struct {
		log   []byte
		sound bool
	}{
		"nothing":                           {nil, true},
		"half a header":                     {little[:20], true},
		"a header":                          {little[:logHead], true},
		"a torn header":                     {flipped(little, 9)[:logHead], true},
		"little endian":                     {little, true},
		"big endian":                        {big, true},
		"the end of an older log behind it": {append(slices.Clone(little), older[len(little):]...), true},
		"a torn last frame":                 {little[:len(little)-9], true},
		"a torn last commit":                {flipped(little, logHead+8*frame+100), true},
		"a bad page":                        {flipped(little, logHead+2*frame+100), false},
		"a bad page, big endian":            {flipped(big, logHead+100), false},
		"a bad page number":                 {flipped(little, logHead+3*frame+1), false},
		"bad salts":                         {flipped(little, logHead+3*frame+9), false},
		"a bad checksum":                    {flipped(little, logHead+3*frame+20), false},
		"a bad header":                      {flipped(little, 17), false},
		"a bad magic":                       {flipped(little, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := queue.ReadLog(c.log); c.sound {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, queue.ErrDamaged)
			}
		})
	}
}

// What SQLite itself writes is sound.
func TestLogOfAStore(t *testing.T) {
	dir, _ := filled(t)
	require.NoError(t, queue.CheckFile(t.Context(), filepath.Join(dir, "killed.db")))
}

func FuzzLog(f *testing.F) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		log := queue.MakeLog(4, order, 7)
		f.Add(log)
		f.Add(log[:len(log)-1])
		f.Add(log[:logHead-1])
		f.Add(flipped(log, logHead+frame+100))
		f.Add(flipped(log, 17))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := queue.ReadLog(b); err != nil && !errors.Is(err, queue.ErrDamaged) {
			t.Fatal(err)
		}
	})
}
