package api

// VerifyResult is the value of a verify job's result record.
type VerifyResult struct {
	Equal bool         `json:"equal"`
	Kind  string       `json:"kind"` // file, stream or tree, as its source says
	A     VerifiedSide `json:"a"`
	B     VerifiedSide `json:"b"`

	// Of files: the pieces that were compared, and what differs.
	Pieces    int64   `json:"pieces,omitzero"`
	Different int64   `json:"different,omitzero"` // bytes in pieces that differ
	Ranges    []Range `json:"ranges,omitempty"`   // of these, neighbours merged

	// Of trees: the entries that both have, and what differs.
	Entries     int64          `json:"entries,omitzero"`
	Counts      *Differences   `json:"counts,omitzero"`
	Differences []DifferentOne `json:"differences,omitempty"`

	More    int64   `json:"more,omitzero"` // ranges or differences that are not listed
	Seconds float64 `json:"seconds"`
}

// VerifiedSide is what one side is.
type VerifiedSide struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"` // bytes of content
}

// Range is a part of a file.
type Range struct {
	At  int64 `json:"at"`
	Len int64 `json:"len"`
}

// Differences counts entries by what differs; one may count several times.
type Differences struct {
	Content int64 `json:"content"`
	Type    int64 `json:"type"`
	Target  int64 `json:"target"` // of a link or symbolic link, or a device's number
	Mode    int64 `json:"mode"`
	MTime   int64 `json:"mtime"`
	OnlyA   int64 `json:"only_a"`
	OnlyB   int64 `json:"only_b"`
	Unread  int64 `json:"unread"` // could not be compared
}

// DifferentOne names one entry that differs.
type DifferentOne struct {
	Path string   `json:"path"`
	What []string `json:"what"` // content, type, target, mode, mtime, only_a, only_b, unread
}
