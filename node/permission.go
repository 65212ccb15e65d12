package node

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gantry/api"

	"golang.org/x/sys/unix"
)

// Permissions as in mode bits.
const (
	permSearch = 1
	permWrite  = 2
	permRead   = 4
)

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// A refusal is the place on a path where somebody is not let on.
type refusal struct {
	path string
	want uint32
	st   unix.Stat_t // zero when it cannot be looked at
	err  error
}

func (r *refusal) Error() string {
	if errors.Is(r.err, unix.EACCES) {
		return fmt.Sprintf("%s lacks %s", r.path, permText(r.want))
	}
	return fmt.Sprintf("%s: %v", r.path, r.err)
}

func permText(perm uint32) string {
	var words []string
	for i, word := range []string{"read", "write", "search"} {
		if perm&(4>>i) != 0 {
			words = append(words, word)
		}
	}
	return strings.Join(words, " and ")
}

// walk goes down a path, folder by folder, and asks may at each for search, and
// for want at the end. It returns the first refusal, nil if there is none.
func walk(path string, want uint32, may func(path string, st *unix.Stat_t, want uint32) error) *refusal {
	links := 0
	at, rest := "/", strings.Trim(path, "/")
	for {
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return &refusal{path: at, want: want, err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			target, err := os.Readlink(at)
			if links++; err != nil || links > maxLinks {
				return &refusal{path: at, err: errors.Join(err, unix.ELOOP)}
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(at), target)
			}
			at, rest = "/", strings.Trim(filepath.Join(target, rest), "/")
			continue
		}
		if rest != "" && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return &refusal{path: at, err: unix.ENOTDIR}
		}
		asked := uint32(permSearch)
		if rest == "" {
			asked = want
		}
		if err := may(at, &st, asked); err != nil {
			return &refusal{at, asked, st, err}
		}
		if rest == "" {
			return nil
		}
		var next string
		next, rest, _ = strings.Cut(rest, "/")
		at = filepath.Join(at, next)
	}
}

// kernel asks for the responder itself, capabilities and read-only mounts
// included.
func kernel(path string, _ *unix.Stat_t, want uint32) error {
	return unix.Faccessat(unix.AT_FDCWD, path, want, unix.AT_EACCESS)
}

// bits judges by mode bits and access control lists, for somebody else.
func (p person) bits(path string, st *unix.Stat_t, want uint32) error {
	if p.uid == 0 || p.mayACL(aclOf(path, st), st, want) {
		return nil
	}
	return unix.EACCES
}

// personOf is a uid with the groups that its account has.
func personOf(uid uint32) person {
	p := person{uid: uid}
	account, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return p
	}
	p.name = account.Username
	groups, _ := account.GroupIds()
	for _, g := range append(groups, account.Gid) {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil && !slices.Contains(p.gids, uint32(n)) {
			p.gids = append(p.gids, uint32(n))
		}
	}
	return p
}

// myself is the responder.
func myself() (person, error) {
	p := person{uid: uint32(os.Geteuid()), gids: []uint32{uint32(os.Getegid())}}
	if account, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		p.name = account.Username
	}
	groups, err := os.Getgroups()
	for _, g := range groups {
		if !slices.Contains(p.gids, uint32(g)) {
			p.gids = append(p.gids, uint32(g))
		}
	}
	return p, err
}

// grant says what lets p on where he was refused: a group that has the right
// already, else a line for the access control list.
func (p person) grant(r *refusal) string {
	switch {
	case errors.Is(r.err, unix.EROFS):
		return "its file system is mounted read-only: mount -o remount,rw"
	case errors.Is(r.err, unix.ENOENT):
		return "make it, or correct the path in node.toml"
	case !errors.Is(r.err, unix.EACCES) && !errors.Is(r.err, unix.EPERM) || r.st.Mode == 0:
		return ""
	}
	who := strconv.FormatUint(uint64(p.uid), 10)
	perm := []byte("---")
	for i, c := range "rwx" {
		if r.want&(4>>i) != 0 {
			perm[i] = byte(c)
		}
	}
	line := fmt.Sprintf("setfacl -m u:%s:%s %s", who, perm, quoted(r.path))
	if r.st.Mode&unix.S_IFMT == unix.S_IFBLK {
		line = fmt.Sprintf("a udev rule that gives %s to uid %s (setfacl is lost at the next start)", quoted(r.path), who)
	}
	if r.st.Mode>>3&7&r.want == r.want && !slices.Contains(p.gids, r.st.Gid) && r.st.Gid != 0 {
		group := strconv.FormatUint(uint64(r.st.Gid), 10)
		if g, err := user.LookupGroupId(group); err == nil {
			group = g.Name
		}
		line = fmt.Sprintf("usermod -aG %s %s and restart it; or %s", group, accountText(p), line)
	}
	if r.want&permWrite == 0 && r.st.Mode&unix.S_IFMT != unix.S_IFBLK {
		line += "; or, to read everything, CAP_DAC_READ_SEARCH (AmbientCapabilities= in its unit)"
	}
	return line
}

func accountText(p person) string {
	if p.name == "" {
		return fmt.Sprintf("(the account of uid %d)", p.uid)
	}
	return p.name
}

// quoted is a path for a shell.
func quoted(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,:@%") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// capabilities are the ones of the responder that let it pass modes.
func capabilities() []string {
	var names []string
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(status), "\nCapEff:")
	text, _, _ := strings.Cut(rest, "\n")
	bits, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
	if err != nil {
		return nil
	}
	for bit, name := range []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"} {
		if bits&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// refused makes a line of a refusal; fine is its text when there is none.
func (p person) refused(name string, r *refusal, fine string) api.CheckItem {
	if r == nil {
		return api.CheckItem{Name: name, State: api.CheckOK, Text: fine}
	}
	return api.CheckItem{Name: name, State: api.CheckRefused, Text: r.Error(), Grant: p.grant(r)}
}
