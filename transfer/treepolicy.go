package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// Values of a [TreePolicy] beside [XattrsNone], [XattrsUser] and [XattrsAll]; the
// first of each is the default.
const (
	OwnerIgnore, OwnerKeep                  = "ignore", "keep"
	SpecialSkip, SpecialRefuse, SpecialKeep = "skip", "refuse", "keep"
	SetIDDrop, SetIDKeep                    = "drop", "keep"
)

// TreePolicy is what the target's administrator lets a source decide about the
// entries of a tree. The zero value is the most careful one.
type TreePolicy struct {
	// Owner: keep gives entries the numeric owner and group of the source.
	Owner string
	// Xattrs: user keeps the attributes user.*; all keeps the others too, with
	// them access control lists, and capabilities if SetID is keep.
	Xattrs string
	// Special: what becomes of devices, fifos and sockets.
	Special string
	// SetID: keep leaves the bits setuid and setgid on files.
	SetID string
}

// orDefaults fills what is not set, and refuses what is not known.
func (p TreePolicy) orDefaults() (TreePolicy, error) {
	for _, c := range []struct {
		name    string
		value   *string
		allowed []string
	}{
		{"owner", &p.Owner, []string{OwnerIgnore, OwnerKeep}},
		{"xattrs", &p.Xattrs, []string{XattrsNone, XattrsUser, XattrsAll}},
		{"special", &p.Special, []string{SpecialSkip, SpecialRefuse, SpecialKeep}},
		{"setid", &p.SetID, []string{SetIDDrop, SetIDKeep}},
	} {
		known := *c.value == ""
		if known {
			*c.value = c.allowed[0]
		}
		for _, a := range c.allowed {
			known = known || *c.value == a
		}
		if !known {
			return p, fail(api.BadRequest, nil, "%s = %.40q: allowed are %s", c.name, *c.value, strings.Join(c.allowed, ", "))
		}
	}
	return p, nil
}

// mode is what an entry's mode becomes here. On a directory setgid gives no
// rights, it says which group new entries have.
func (p TreePolicy) mode(t TreeType, mode uint32) uint32 {
	if p.SetID == SetIDKeep {
		return mode
	}
	if t == TreeDir {
		return mode &^ unix.S_ISUID
	}
	return mode &^ (unix.S_ISUID | unix.S_ISGID)
}

// capability is the attribute that makes a program privileged without setuid.
const capability = "security.capability"

// xattr says whether the attribute is kept.
func (p TreePolicy) xattr(name string) bool {
	switch p.Xattrs {
	case XattrsUser:
		return strings.HasPrefix(name, "user.")
	case XattrsAll:
		return name != capability || p.SetID == SetIDKeep
	}
	return false
}

// vet refuses what no policy allows, and what this one refuses.
func (p TreePolicy) vet(e *TreeEntry) error {
	const nobody = 1<<32 - 1 // to the kernel: leave it as it is
	switch e.Type {
	case TreeFifo, TreeSocket, TreeChar, TreeBlock:
		if p.Special == SpecialRefuse {
			return unsafeEntry(e.Path, "it is a %s, and the resource has special = %q", e.Type, SpecialRefuse)
		}
	}
	if p.Owner == OwnerKeep && e.Type != TreeLink && (e.UID == nobody || e.GID == nobody) {
		return unsafeEntry(e.Path, "its owner %d:%d is none that a file can have", e.UID, e.GID)
	}
	return nil
}

// maxNamed is how many entries are named in the feed, of each kind of news; the
// rest is counted.
const maxNamed = 100

// A tally counts news by kind, and says the first ones.
type tally struct {
	mu    sync.Mutex
	n     map[string]int64
	limit int64
	say   func(text string)
}

// add counts one more; text is what is said of it.
func (t *tally) add(kind string, text func() string) {
	t.mu.Lock()
	if t.n == nil {
		t.n = map[string]int64{}
	}
	t.n[kind]++
	n := t.n[kind]
	t.mu.Unlock()
	if n <= t.limit {
		t.say(text())
	}
}

// rest says how many were not named.
func (t *tally) rest(format string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for kind, n := range t.n {
		if n > t.limit {
			t.say(fmt.Sprintf(format, kind, n-t.limit))
		}
	}
}

// lose counts what of an entry could not be kept, and says the first of a kind.
func (r *treeImport) lose(what, path string, err error) {
	r.lost.add(what, func() string {
		return fmt.Sprintf("%s of %.300q cannot be kept here (%v); further ones are counted", what, path, err)
	})
}

// dress gives the open file or directory fd the attributes of its source. Times
// come last: everything else may change them.
func (r *treeImport) dress(fd int, path string, t TreeType, a *TreeAttrs) error {
	if r.Policy.Owner == OwnerKeep {
		if err := unix.Fchown(fd, int(a.UID), int(a.GID)); err != nil {
			r.lose("owner", path, err)
		}
	}
	mode := r.Policy.mode(t, a.Mode)
	var st unix.Stat_t // much cheaper than a change that changes nothing
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&maxPerm != mode {
		if err := unix.Fchmod(fd, mode); err != nil {
			return local(err, "giving %.300q its mode", path)
		}
	}
	for name, value := range a.Xattrs {
		if !r.Policy.xattr(name) {
			continue
		}
		if err := unix.Fsetxattr(fd, name, value, 0); err != nil {
			r.lose("extended attribute "+name, path, err)
		}
	}
	// fd itself: no name is looked up.
	if err := futimens(fd, a); err != nil {
		return local(err, "giving %.300q its time", path)
	}
	return nil
}

// dressName is dress for an entry that cannot be opened: a symbolic link, a
// device, a fifo or a socket.
func (r *treeImport) dressName(dir int, name string, e *TreeEntry) error {
	// The file itself, whatever becomes of its name: a path of its descriptor.
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return local(err, "opening %.300q", e.Path)
	}
	defer unix.Close(fd)
	if r.Policy.Owner == OwnerKeep {
		if err := unix.Fchownat(fd, "", int(e.UID), int(e.GID), unix.AT_EMPTY_PATH); err != nil {
			r.lose("owner", e.Path, err)
		}
	}
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	if e.Type != TreeSymlink {
		if err := unix.Fchmodat(unix.AT_FDCWD, self, r.Policy.mode(e.Type, e.Mode), 0); err != nil {
			return local(err, "giving %.300q its mode", e.Path)
		}
	}
	for key, value := range e.Xattrs {
		if !r.Policy.xattr(key) {
			continue
		}
		err := unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, name), key, value, 0)
		if err != nil {
			r.lose("extended attribute "+key, e.Path, err)
		}
	}
	err = unix.UtimesNanoAt(dir, name, times(&e.TreeAttrs), unix.AT_SYMLINK_NOFOLLOW)
	return local(err, "giving %.300q its time", e.Path)
}

func times(a *TreeAttrs) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: a.MTime.Unix(), Nsec: int64(a.MTime.Nanosecond())}}
}

// alike says whether the attributes of what is here are those that the entry
// would get. xattrs reads those of what is here; it is called only if they count.
func (p TreePolicy) alike(e *TreeEntry, here identity, xattrs func() (map[string][]byte, error)) (bool, error) {
	if e.Type == TreeLink {
		return true, nil
	}
	if !here.mtime.Equal(e.MTime) || e.Type != TreeSymlink && here.mode&maxPerm != p.mode(e.Type, e.Mode) {
		return false, nil
	}
	if p.Owner == OwnerKeep && (here.uid != e.UID || here.gid != e.GID) {
		return false, nil
	}
	if p.Xattrs == XattrsNone {
		return true, nil
	}
	has, err := xattrs()
	if err != nil {
		return false, err
	}
	n := 0
	for name, value := range e.Xattrs {
		if !p.xattr(name) {
			continue
		}
		n++
		if got, ok := has[name]; !ok || !bytes.Equal(got, value) {
			return false, nil
		}
	}
	for name := range has {
		if p.xattr(name) {
			n--
		}
	}
	return n == 0, nil
}

// readXattrs returns the extended attributes of name in dir, not followed, that
// the policy keeps.
func (p TreePolicy) readXattrs(dir int, name string) (map[string][]byte, error) {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
	list := make([]byte, 1<<16) // XATTR_LIST_MAX
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	for raw := range bytes.SplitSeq(list[:n], []byte{0}) {
		key := string(raw)
		if key == "" || !p.xattr(key) {
			continue
		}
		value := make([]byte, 1<<16) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(path, key, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[key] = bytes.Clone(value[:n])
	}
	return all, nil
}

// futimens sets the modification time of an open file.
func futimens(fd int, a *TreeAttrs) error {
	err := unix.UtimesNanoAt(fd, "", times(a), unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // before Linux 5.8
		err = unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), times(a), 0)
	}
	return err
}
