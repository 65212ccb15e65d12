package front

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Programs are looked up on PATH and then here: Debian keeps servers where a
// user's PATH does not look.
var serverFolders = []string{"/usr/sbin", "/usr/local/sbin"}

// Program returns the server's executable, or an error that names the package
// to install. The embedded front has none.
func Program(k Kind) (string, error) {
	if k != Lighttpd && k != Nginx {
		return "", fmt.Errorf("front %q is no program; allowed: %s, %s", k, Lighttpd, Nginx)
	}
	if p, err := exec.LookPath(string(k)); err == nil {
		return filepath.Abs(p)
	}
	for _, dir := range serverFolders {
		if p, err := exec.LookPath(filepath.Join(dir, string(k))); err == nil {
			return p, nil
		}
	}
	packages := map[Kind]string{Lighttpd: "lighttpd and lighttpd-mod-openssl", Nginx: "nginx"}
	return "", fmt.Errorf("%s is not installed; on Debian install %s", k, packages[k])
}

// Command is the command line that runs the server in the foreground with the
// configuration file conf. Run it as the front's user, never as root. If the
// program is missing, its bare name stands first and starting it fails.
func Command(k Kind, conf string, o Options) []string {
	program, err := Program(k)
	if err != nil {
		program = string(k)
	}
	if k == Nginx {
		// -e: nginx opens a log before it has read where the log should be.
		return []string{program, "-p", o.Dir, "-e", filepath.Join(o.Dir, "error.log"), "-c", conf}
	}
	return []string{program, "-D", "-f", conf}
}

// CheckConfig lets the server itself read conf, as the calling user: keys and
// folders must be readable and writable by him. The error has the server's
// words.
func CheckConfig(ctx context.Context, k Kind, conf string, o Options) error {
	if _, err := Program(k); err != nil {
		return err
	}
	argv := append(Command(k, conf, o), "-t")
	if k == Lighttpd {
		argv[len(argv)-1] = "-tt" // also loads the modules and opens the key
	}
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("checking %s: %w: %s", conf, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Reload makes the running server pid read its configuration, certificate and
// key again. Old requests get a grace (lighttpd 2 s, nginx 10 s) and are then
// cut. nginx serves new ones meanwhile, lighttpd when the grace is over. The
// embedded front reads its files once: restart it.
func Reload(k Kind, pid int) error {
	signals := map[Kind]syscall.Signal{Lighttpd: syscall.SIGUSR1, Nginx: syscall.SIGHUP}
	sig, ok := signals[k]
	if !ok {
		return fmt.Errorf("front %q cannot reload; restart it", k)
	}
	if pid <= 1 {
		return fmt.Errorf("reloading %s: %d is no process of ours", k, pid)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		return fmt.Errorf("reloading %s, process %d: %w", k, pid, err)
	}
	return nil
}

// Prepare makes o.Dir, mode 0700, and gives it to uid and gid when the caller
// is root; uid < 0 leaves the owner alone. A folder that exists is left as it
// is. The servers make in it what they need.
func Prepare(o Options, uid, gid int) error {
	if err := checkPath("dir", o.Dir); err != nil {
		return err
	}
	err := os.Mkdir(o.Dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if info, statErr := os.Lstat(o.Dir); statErr == nil && info.IsDir() {
			return nil
		}
	}
	if err == nil && uid >= 0 && os.Geteuid() == 0 {
		err = os.Lchown(o.Dir, uid, gid)
	}
	if err != nil {
		return fmt.Errorf("preparing the front's folder: %w", err)
	}
	return nil
}
