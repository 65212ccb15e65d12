package api

// States of a line of a Check.
const (
	CheckOK      = "ok"
	CheckRefused = "refused" // what the resource is for will fail
	CheckMissing = "missing" // an ability that the file system lacks; what is done instead is said
	CheckNote    = "note"    // worth knowing
)

// Check is the reply of GET resources/{r}/check: whether the node's user can
// really read and write a resource, tried and not computed.
type Check struct {
	Resource     string      `json:"resource"`
	Kind         string      `json:"kind"`
	Writable     bool        `json:"writable"` // imports are allowed by node.toml
	UID          uint32      `json:"uid"`
	User         string      `json:"user,omitzero"` // "" when no account has the uid
	Groups       []uint32    `json:"groups"`
	Capabilities []string    `json:"capabilities,omitzero"` // that let it pass modes
	OK           bool        `json:"ok"`                    // nothing is refused
	Items        []CheckItem `json:"items"`
}

// CheckItem is one thing that was tried.
type CheckItem struct {
	Name  string `json:"name"`
	State string `json:"state"`
	Text  string `json:"text,omitzero"`
	Grant string `json:"grant,omitzero"` // what an administrator can do about it
}
