package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"gantry/internal/testkit"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What is computed of modes and lists is what the kernel does for that user.
func TestACLAgreesWithTheKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	if _, err := exec.LookPath("setfacl"); err != nil {
		t.Skip("needs setfacl")
	}
	dir := testkit.Dir(t)
	who := person{uid: 58299, gids: []uint32{58299, 58298}}
	n := 0
	for _, owner := range []int{0, 58299} {
		for _, group := range []int{0, 58298} {
			for _, mode := range []os.FileMode{0, 0o600, 0o640, 0o604, 0o660, 0o060, 0o006, 0o707} {
				for _, acl := range []string{"", "u:58299:r", "u:58299:-", "g:58298:rw", "g:58298:-,g:58299:r", "u:58299:rw,m:r", "u:1:rw"} {
					path := filepath.Join(dir, fmt.Sprint(n))
					n++
					require.NoError(t, os.WriteFile(path, nil, 0o600))
					require.NoError(t, os.Chown(path, owner, group))
					require.NoError(t, os.Chmod(path, mode))
					if acl != "" {
						out, err := exec.Command("setfacl", "-m", acl, path).CombinedOutput()
						if err != nil {
							t.Skipf("the file system has no lists: %s", out)
						}
					}
				}
			}
		}
	}
	cmd := exec.Command("/bin/sh", "-c", `for f in "$1"/*; do test -r "$f" && echo "$f 4"; test -w "$f" && echo "$f 2"; done; true`, "sh", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.uid, Gid: who.gids[0], Groups: who.gids}}
	out, err := cmd.Output()
	require.NoError(t, err)
	for i := range n {
		path := filepath.Join(dir, fmt.Sprint(i))
		var st unix.Stat_t
		require.NoError(t, unix.Stat(path, &st))
		for _, want := range []uint32{permRead, permWrite} {
			may := who.bits(path, &st, want) == nil
			require.Equal(t, contains(out, fmt.Sprintf("%s %d\n", path, want)), may, "%s %o of %d:%d, want %d", path, st.Mode, st.Uid, st.Gid, want)
		}
	}
}

func contains(out []byte, line string) bool {
	for i := 0; i+len(line) <= len(out); i++ {
		if string(out[i:i+len(line)]) == line {
			return true
		}
	}
	return false
}

func FuzzACL(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x04\x00\xbb\xe3\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"))
	f.Add([]byte("\x02\x00\x00\x00\x08\x00\x04\x00\xba\xe3\x00\x00"))
	f.Add([]byte("\x03\x00\x00\x00"))
	f.Add([]byte("\x02\x00\x00\x00\x01\x00\x08\x00\xff\xff\xff\xff"))
	f.Add([]byte("\x02\x00\x00\x00\x03\x00\x07\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseACL(b)
		if err != nil {
			require.Nil(t, list)
			return
		}
		st := unix.Stat_t{Uid: 1, Gid: 2}
		for _, p := range []person{{uid: 1}, {uid: 58299}, {uid: 3, gids: []uint32{2, 58298}}} {
			if p.mayACL(list, &st, permRead|permWrite) {
				require.True(t, p.mayACL(list, &st, permRead))
			}
		}
	})
}
