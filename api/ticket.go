package api

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

// NewTicket draws a ticket: 256 random bits as 64 lower-case hex digits.
func NewTicket() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// TicketSHA256 is what an export is told of a ticket: the SHA-256, in hex, of
// its 64 characters (printf %s TICKET | sha256sum).
func TicketSHA256(ticket string) string {
	sum := sha256.Sum256([]byte(ticket))
	return hex.EncodeToString(sum[:])
}
