package transfer

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// A Claim names a target, so that two writers of it, or of a tree and something
// in it, find each other however their paths are spelled.
type Claim struct {
	// Key is equal for two targets that are the same name of the same folder.
	Key string
	// Dir is the target itself, if it is a directory.
	Dir string
	// Above are the folders that the target lies in, up to the root of all.
	Above []string
}

// Overlaps says whether one of the two is, or lies in, the other.
func (c Claim) Overlaps(d Claim) bool {
	return c.Key == d.Key || c.Dir != "" && slices.Contains(d.Above, c.Dir) || d.Dir != "" && slices.Contains(c.Above, d.Dir)
}

// ClaimOf is the claim of a name below root; "" is the root itself.
func ClaimOf(root *os.Root, name string) (c Claim, err error) {
	var d *os.File
	base := "."
	if name == "" {
		if d, err = root.Open("."); err != nil {
			return c, local(err, "opening the resource")
		}
	} else if d, base, err = openParent(root, name); err != nil {
		return c, err
	}
	defer d.Close()
	id, err := identify(int(d.Fd()), "")
	if err != nil {
		return c, local(err, "looking at the folder of %q", name)
	}
	c.Key = fmt.Sprintf("%s/%s", place(id), base)
	if base != "." {
		c.Above = append(c.Above, place(id))
	}
	if self, err := identify(int(d.Fd()), base); err == nil && self.mode&unix.S_IFMT == unix.S_IFDIR {
		c.Dir = place(self)
	}
	return c, c.climb(int(d.Fd()), id)
}

// climb adds the folders above the open folder fd, which is id.
func (c *Claim) climb(fd int, id identity) error {
	up := ".."
	for range api.MaxPath {
		above, err := identify(fd, up)
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENAMETOOLONG) {
			return nil // whatever lies above, this node cannot write to it by this way
		}
		if err != nil {
			return local(err, "looking at the folders above the target")
		}
		if above.ino == id.ino && above.dev == id.dev {
			return nil
		}
		c.Above = append(c.Above, place(above))
		id, up = above, up+"/.."
	}
	return nil
}

func place(id identity) string { return fmt.Sprintf("%d:%d", id.dev, id.ino) }
