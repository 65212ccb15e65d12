package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rsyncs are the two ways in which people run rsync: its own daemon, in the
// clear, and over ssh. Both serve the folder source on loopback.
type rsyncs struct {
	*rivals
	daemon int    // port, 0 = not installed
	remote string // the shell command of rsync -e, "" = not installed
	folder string
}

func newRsyncs(ctx context.Context, r *rivals, folder string) (*rsyncs, error) {
	s := &rsyncs{rivals: r, folder: folder}
	if !installed("rsync") {
		return s, nil
	}
	s.daemon = freePort()
	conf := r.write("rsyncd.conf", fmt.Sprintf("address = 127.0.0.1\nport = %d\nuse chroot = no\nlog file = %s/rsyncd.log\n%s[src]\npath = %s\n",
		s.daemon, r.dir, r.root("uid = root\ngid = root"), folder))
	if err := r.serve(ctx, s.daemon, "rsync", "--daemon", "--no-detach", "--config", conf); err != nil {
		return nil, err
	}
	// sshd wants to be called by its whole path, and a folder that Debian's unit makes.
	if !installed("ssh-keygen", "/usr/sbin/sshd") || os.MkdirAll("/run/sshd", 0o755) != nil {
		return s, nil
	}
	for _, key := range []string{"host", "user"} {
		path := filepath.Join(r.dir, key)
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
	}
	port := freePort()
	sshd := r.write("sshd_config", fmt.Sprintf("ListenAddress 127.0.0.1:%d\nHostKey %[2]s/host\nAuthorizedKeysFile %[2]s/user.pub\nStrictModes no\nUsePAM no\nLogLevel QUIET\nPasswordAuthentication no\nPidFile none\n", port, r.dir))
	if err := r.serve(ctx, port, "/usr/sbin/sshd", "-D", "-f", sshd); err != nil {
		return nil, err
	}
	s.remote = fmt.Sprintf("ssh -q -p %d -i %s/user -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null", port, r.dir)
	return s, nil
}

// contender runs a line of shell.
func (s *rsyncs) contender(name, target, format string, args ...any) *contender {
	line := fmt.Sprintf(format, args...)
	return &contender{name: name, target: target, run: func(ctx context.Context) error { return shell(ctx, line) }}
}

// url is a path of the folder as the daemon names it.
func (s *rsyncs) url(name string) string {
	return fmt.Sprintf("rsync://127.0.0.1:%d/src/%s", s.daemon, name)
}

// copies are rsync's rows of the table of copies.
func (s *rsyncs) copies(name string) (all []*contender) {
	target := filepath.Join(s.dir, "rsync.img")
	if s.daemon > 0 {
		all = append(all, s.contender("rsync daemon without TLS, --fsync, + b3sum", target, "rsync -tW --fsync %s %s && b3sum %[2]s", s.url(name), target))
	}
	if s.remote != "" {
		all = append(all, s.contender("rsync over ssh, --fsync, + b3sum", target, "rsync -tW --fsync -e '%s' 127.0.0.1:%s %s && b3sum %[3]s", s.remote, filepath.Join(s.folder, name), target))
	}
	return all
}

func shell(ctx context.Context, line string) error {
	out, err := exec.CommandContext(ctx, "bash", "-c", "set -e -o pipefail; "+line).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
	}
	return nil
}
