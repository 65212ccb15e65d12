package api

import (
	"time"

	"github.com/google/uuid"
)

// NewID makes a task id: a UUIDv7, so that its time is in it. Make it when the
// attempt starts.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// ValidID reports whether id is a UUIDv7 (RFC 9562, section 5.7) in its
// canonical form, lower case with hyphens.
func ValidID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.Version() == 7 && u.Variant() == uuid.RFC4122 && u.String() == id
}

// IDTime is the time in a valid id, in milliseconds.
func IDTime(id string) time.Time {
	u, err := uuid.Parse(id)
	if err != nil {
		return time.Time{}
	}
	var ms int64
	for _, b := range u[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC()
}
