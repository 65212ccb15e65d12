package transfer

import "os"

// StageDir is the folder at a resource's root that holds stages. It is hidden
// from lists and refused as a path.
const StageDir = ".gantry"

// StageID identifies a stage: inode and birth time, which no other file of the
// same file system ever has.
type StageID struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Btime int64  `json:"btime"` // nanoseconds since 1970
}

// ReadStage returns the stage recorded in the task folder dir; ok is false when
// there is none.
func ReadStage(dir string) (id StageID, ok bool, err error) { panic("skeleton") }

// Sweep removes the stages in root's StageDir for which orphan returns true.
// Files that are not recorded as a stage must be answered with false: Sweep
// itself knows no names. It returns how many it removed.
func Sweep(root *os.Root, orphan func(StageID) bool) (removed int, err error) { panic("skeleton") }

// Key returns a key that is equal for two targets that are the same file or
// name: device and inode of the folder, and the last part of name.
func Key(root *os.Root, name string) (string, error) { panic("skeleton") }
