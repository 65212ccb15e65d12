package config

// KindTree is a directory that moves with everything in it.
const KindTree = "tree"

// Tree says what belongs to a tree when it is exported, and what a source decides
// about its entries when it is imported.
type Tree struct {
	Cross   bool   // other file systems below it, too
	Special string // SpecialSkip, SpecialRefuse or SpecialKeep
	Xattrs  string // XattrsNone, XattrsUser or XattrsAll
	Owner   string // of imports: OwnerIgnore or OwnerKeep
	SetID   string // of imports: SetIDDrop or SetIDKeep
}

// Whether imported entries get the numeric owner and group of the source.
const (
	OwnerIgnore = "ignore"
	OwnerKeep   = "keep"
)

// Whether imported files keep the bits setuid and setgid, and capabilities.
const (
	SetIDDrop = "drop"
	SetIDKeep = "keep"
)

// What happens to devices, fifos and sockets.
const (
	SpecialSkip   = "skip"   // they are reported, and the rest moves
	SpecialRefuse = "refuse" // an import that has one fails; exports skip them
	SpecialKeep   = "keep"
)

// Which extended attributes move.
const (
	XattrsNone = "none"
	XattrsUser = "user" // those below "user."
	XattrsAll  = "all"  // also ACLs, and what else the node's user may read
)

// readTree reads the keys of a tree; nil for other kinds, whose tables may not have them.
func readTree(t *table, r *Resource) *Tree {
	if r.Kind != KindTree {
		return nil
	}
	if r.Send == SendFront {
		t.problem("send", SendStream, "", `is "front", but a tree's files pass through the responder, joined to one content`)
	}
	return &Tree{
		Cross:   t.bool("cross"),
		Special: t.oneOf("special", SpecialSkip, []string{SpecialSkip, SpecialRefuse, SpecialKeep}, nil),
		Xattrs:  t.oneOf("xattrs", XattrsNone, []string{XattrsNone, XattrsUser, XattrsAll}, nil),
		Owner:   t.oneOf("owner", OwnerIgnore, []string{OwnerIgnore, OwnerKeep}, nil),
		SetID:   t.oneOf("setid", SetIDDrop, []string{SetIDDrop, SetIDKeep}, nil),
	}
}
