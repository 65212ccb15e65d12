package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"unicode/utf8"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// StageDir is the folder at a resource's root that holds stages. It is hidden
// from lists and refused as a path.
const StageDir = ".gantry"

// maxPart is NAME_MAX of every Linux file system worth naming.
const maxPart = 255

// CheckName says whether name may be used as a path below a root: relative,
// clean, slash-separated, valid UTF-8 without control characters, at most
// api.MaxPath bytes and 255 a part, no part ".." or StageDir. The code is
// bad_path.
func CheckName(name string) error {
	bad := func(why string) error { return fail(api.BadPath, nil, "path %.80q %s", name, why) }
	switch {
	case name == "" || name == ".":
		return bad("names no file; write one after the resource, NODE:RESOURCE/FILE")
	case len(name) > api.MaxPath:
		return bad(fmt.Sprintf("is longer than %d bytes", api.MaxPath))
	case !utf8.ValidString(name):
		return bad("is not valid UTF-8")
	case strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return bad("has a control character")
	case path.IsAbs(name):
		return bad("is absolute")
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return bad("is not in its shortest form")
		case len(part) > maxPart:
			return bad(fmt.Sprintf("has a part longer than %d bytes", maxPart))
		case part == StageDir:
			return bad("belongs to gantry itself")
		}
	}
	return nil
}

// openParent opens the folder of name and returns it with name's last part.
// Symbolic links on the way are followed as long as they stay below root.
func openParent(root *os.Root, name string) (*os.File, string, error) {
	if err := CheckName(name); err != nil {
		return nil, "", err
	}
	dir, base := path.Split(name)
	d, err := root.OpenFile(path.Clean("./"+dir), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fail(api.NotFound, err, "there is no folder %q in the resource", path.Clean(dir))
	}
	if err != nil {
		return nil, "", escape(err, name)
	}
	// A link may lead into the stages; the name alone does not show it.
	stages, err := root.Lstat(StageDir)
	if errors.Is(err, fs.ErrNotExist) {
		return d, base, nil
	}
	info, err2 := d.Stat()
	if err = errors.Join(err, err2); err != nil {
		d.Close()
		return nil, "", local(err, "opening the folder of %q", name)
	}
	if os.SameFile(stages, info) {
		d.Close()
		return nil, "", fail(api.BadPath, nil, "path %.80q belongs to gantry itself", name)
	}
	return d, base, nil
}

// escape gives an error of os.Root its code: leaving the root has no errno.
func escape(err error, name string) error {
	if _, ok := errors.AsType[syscall.Errno](err); !ok {
		return fail(api.BadPath, err, "path %.80q leaves the resource", name)
	}
	if errors.Is(err, syscall.ELOOP) {
		return fail(api.BadPath, err, "path %.80q has too many symbolic links", name)
	}
	return local(err, "opening %q", name)
}

// OpenFile opens the regular file name below root for reading. It does not
// follow a symbolic link in the last part and does not wait for a fifo's writer.
// Codes: bad_path, not_found, not_regular, denied, io.
func OpenFile(root *os.Root, name string) (*os.File, error) {
	d, base, err := openParent(root, name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return openAt(d, base, name)
}

func openAt(d *os.File, base, name string) (*os.File, error) {
	fd, err := unix.Openat(int(d.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return nil, fail(api.NotRegular, err, "%q is not a regular file", name)
	case err != nil:
		return nil, local(err, "opening %q", name)
	}
	f := os.NewFile(uintptr(fd), name)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fail(api.NotRegular, nil, "%q is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, local(err, "opening %q", name)
	}
	return f, nil
}
