package master

import (
	"encoding/base64"
	"encoding/binary"

	"gantry/api"

	"github.com/google/uuid"
)

// A cursor is the place after a job in a list with the same filters. It holds
// no secret and gives no right: whoever makes one up reads his own list from
// another place.
type cursor struct {
	last string // id of the job before it
	of   uint32 // sum of the filters
}

// cursorVersion begins every cursor, so that a later form is told apart.
const cursorVersion = 1

// cursorSize is the version, the id and the sum.
const cursorSize = 1 + 16 + 4

func (c cursor) String() string {
	id := uuid.MustParse(c.last)
	b := append([]byte{cursorVersion}, id[:]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, c.of))
}

// parseCursor reads what String wrote, and nothing else.
func parseCursor(text string) (cursor, bool) {
	if len(text) > api.MaxCursor {
		return cursor{}, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != cursorSize || b[0] != cursorVersion {
		return cursor{}, false
	}
	c := cursor{last: uuid.UUID(b[1:17]).String(), of: binary.BigEndian.Uint32(b[17:])}
	if !api.ValidID(c.last) || c.String() != text {
		return cursor{}, false
	}
	return c, true
}
