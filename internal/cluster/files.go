package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// copyProgram copies the executable to where every uid may run it: the one
// that go run made lies in a folder of its user's.
func copyProgram(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying the program: %w", err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return fmt.Errorf("copying the program: %w", err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Chmod(0o755), dst.Close()); err != nil {
		return fmt.Errorf("copying the program: %w", err)
	}
	return nil
}

// put writes a small file and gives it to uid.
func (c *Cluster) put(path string, data []byte, mode os.FileMode, uid int) error {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	return c.give(path, mode, uid, uid)
}

func (c *Cluster) mkdir(path string, mode os.FileMode, uid, gid int) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return c.give(path, mode, uid, gid)
}

// give sets owner, then mode (chown clears the setgid bit). Without root the
// owner is the caller already.
func (c *Cluster) give(path string, mode os.FileMode, uid, gid int) error {
	if c.users.isolated {
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// giveAll changes the owner of a folder and of what is in it.
func (c *Cluster) giveAll(dir string, uid int) error {
	if !c.users.isolated {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// free is how many bytes the file system of path has left for its users.
func free(path string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}
