package api

// A Pusher is the right to bring the bytes of an import: the import's creator
// always may, by certificate alone, and ID with the ticket may too. Both fields
// are set, or none.
type Pusher struct {
	ID           string `json:"id,omitzero"`            // SPIFFE id
	TicketSHA256 string `json:"ticket_sha256,omitzero"` // hex
}

// PushTo is where an export brings its bytes itself: an import on a node of the
// exporting node's own cluster.toml, never a URL.
type PushTo struct {
	Node   string `json:"node"`
	Task   string `json:"task"`
	Ticket string `json:"ticket"` // 64 hex digits; in no record, list or log
}

// Kinds of wants.
const (
	WantManifest = "manifest" // a window of the manifest
	WantRehash   = "rehash"   // one piece, read again
	WantSub      = "sub"      // the values of the parts of pieces
	WantContent  = "content"  // a range of bytes
	WantFrames   = "frames"   // ranges of bytes, as frames
)

// A Want is something that a pushed import asks for. Seq is never used twice.
type Want struct {
	Seq  int64  `json:"seq"`
	Kind string `json:"kind"`
	// From is the first entry of a window, or the piece to read again; N how many
	// entries at most; everything before Done is durable at the import.
	From int64 `json:"from,omitzero"`
	N    int64 `json:"n,omitzero"`
	Done int64 `json:"done,omitzero"`
	// Off and Length are the range of a content want, in bytes.
	Off    int64 `json:"off,omitzero"`
	Length int64 `json:"length,omitzero"`
	// Pieces are those of a sub want; Ranges those of a frames want, which may be
	// packed when Zstd is set.
	Pieces []int64     `json:"pieces,omitzero"`
	Ranges []WantRange `json:"ranges,omitzero"`
	Zstd   bool        `json:"zstd,omitzero"`
}

// A WantRange is len bytes from at.
type WantRange struct {
	At  int64 `json:"at"`
	Len int64 `json:"len"`
}

// Wants is the reply of GET tasks/{import}/missing. Outcome is "" as long as the
// import runs.
type Wants struct {
	Wants []Want `json:"wants"`
	// Rate is the most content bytes per second that the import takes; 0 = no
	// limit.
	Rate    int64   `json:"rate,omitzero"`
	Outcome Outcome `json:"outcome,omitzero"`
	Digest  string  `json:"digest,omitzero"` // of an import that is done
	// Code and Message say why an import that is not done ended.
	Code    string `json:"code,omitzero"`
	Message string `json:"message,omitzero"`
}

// What a node finds when it asks a neighbour. The set is closed.
const (
	ReachOK          = "ok"           // it answers us
	ReachUnreachable = "unreachable"  // no connection, or no node answers
	ReachRefused     = "refused"      // its front or its node refuses our certificate
	ReachOther       = "other_server" // the server is not that node's front
	ReachPin         = "pin_mismatch" // its key is not the one pinned
	ReachUnknown     = "unknown_node" // our cluster.toml does not name it
)

// Reach is the reply of GET reach/{node}.
type Reach struct {
	Node    string `json:"node"`    // the one that was asked for
	Outcome string `json:"outcome"` // ReachOK or another of these
	Message string `json:"message,omitzero"`
}
