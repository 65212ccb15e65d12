package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"gantry/internal/cluster"
	"gantry/pki"
)

// rivals are the ways that people use today, with the same certificates: curl
// from the same web servers serving the file themselves, dd behind fcgiwrap,
// dd through socat.
type rivals struct {
	dir, source        string
	ca, cert, key      string // the client's
	servers            []*exec.Cmd
	lighttpd, nginx    int // ports, 0 = not installed
	serverCert, srvKey string
	wrapped            bool // fcgiwrap runs
	proxies            []*cluster.Proxy
}

func newRivals(ctx context.Context, dir, source string) (_ *rivals, err error) {
	own, err := os.MkdirTemp(dir, "rivals-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(own, 0o755); err != nil {
		return nil, err
	}
	r := &rivals{dir: own, source: source}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for _, sub := range []string{"", "tmp", "spool"} {
		if err := os.MkdirAll(filepath.Join(r.dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := r.identity(); err != nil {
		return nil, err
	}
	if installed("fcgiwrap", "dd") {
		if err := r.fcgiwrap(ctx); err != nil {
			return nil, err
		}
	}
	if installed("nginx") {
		r.nginx = freePort()
		conf := r.write("nginx.conf", r.nginxConf())
		if err := r.serve(ctx, r.nginx, "nginx", "-p", r.dir, "-e", filepath.Join(r.dir, "nginx.log"), "-c", conf); err != nil {
			return nil, err
		}
	}
	if installed("lighttpd") {
		r.lighttpd = freePort()
		conf := r.write("lighttpd.conf", r.lighttpdConf())
		if err := r.serve(ctx, r.lighttpd, "lighttpd", "-D", "-f", conf); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// identity makes an authority like the clusters' and one certificate for each
// side.
func (r *rivals) identity() error {
	dir := filepath.Join(r.dir, "ca")
	ca, err := pki.InitCA(dir, "rivals", pki.Options{})
	if err != nil {
		return err
	}
	server, err := ca.Issue(pki.RoleFront, "rival", []string{"localhost", "127.0.0.1"}, 0)
	if err != nil {
		return err
	}
	user, err := ca.Issue(pki.RoleOperator, "rival", nil, 0)
	if err != nil {
		return err
	}
	r.ca = filepath.Join(dir, "ca.pem")
	r.serverCert, r.srvKey = r.write("server.pem", string(server.CertPEM)), r.write("server.key", string(server.KeyPEM))
	r.cert, r.key = r.write("user.pem", string(user.CertPEM)), r.write("user.key", string(user.KeyPEM))
	return nil
}

func (r *rivals) write(name, text string) string {
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		panic(err) // our own fresh folder
	}
	return path
}

func (r *rivals) nginxConf() string {
	return fmt.Sprintf(`daemon off; worker_processes auto; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log;
events { worker_connections 256; }
http { access_log off; sendfile on; client_body_temp_path %[1]s/tmp/a; proxy_temp_path %[1]s/tmp/b; fastcgi_temp_path %[1]s/tmp/c; uwsgi_temp_path %[1]s/tmp/d; scgi_temp_path %[1]s/tmp/e;
 server { listen 127.0.0.1:%[2]d ssl; ssl_certificate %[3]s; ssl_certificate_key %[4]s; ssl_protocols TLSv1.3; ssl_client_certificate %[5]s; ssl_verify_client on;
  location / { root %[6]s; }
  location /wrapped { fastcgi_pass unix:%[1]s/fcgiwrap.sock; fastcgi_param SCRIPT_FILENAME %[6]s/wrapped; fastcgi_param REQUEST_METHOD GET; fastcgi_buffering off; fastcgi_buffer_size 64k; fastcgi_buffers 8 64k; fastcgi_read_timeout 120s; }
 } }
`, r.dir, r.nginx, r.serverCert, r.srvKey, r.ca, filepath.Dir(r.source)) + r.root("user root;")
}

// root adds what only a server started by root needs, to read our files.
func (r *rivals) root(line string) string {
	if os.Geteuid() == 0 {
		return line + "\n"
	}
	return ""
}

func (r *rivals) lighttpdConf() string {
	return fmt.Sprintf(`server.modules = ( "mod_openssl", "mod_fastcgi" )
server.document-root = "%[6]s"
server.bind = "127.0.0.1"
server.port = %[2]d
server.errorlog = "%[1]s/lighttpd.log"
server.upload-dirs = ( "%[1]s/spool" )
server.stream-response-body = 2
server.feature-flags = ( "server.h2proto" => "disable" )
ssl.engine = "enable"
ssl.pemfile = "%[3]s"
ssl.privkey = "%[4]s"
ssl.openssl.ssl-conf-cmd = ( "MinProtocol" => "TLSv1.3" )
ssl.verifyclient.activate = "enable"
ssl.verifyclient.enforce = "enable"
ssl.verifyclient.ca-file = "%[5]s"
fastcgi.server = ( "/wrapped" => (( "socket" => "%[1]s/fcgiwrap.sock", "check-local" => "disable" )) )
`, r.dir, r.lighttpd, r.serverCert, r.srvKey, r.ca, filepath.Dir(r.source))
}

// fcgiwrap runs dd for whoever asks. The script lies where lighttpd looks for
// it, under its document root.
func (r *rivals) fcgiwrap(ctx context.Context) error {
	script := filepath.Join(filepath.Dir(r.source), "wrapped")
	text := fmt.Sprintf("#!/bin/sh\nprintf 'Content-Type: application/octet-stream\\r\\n\\r\\n'\nexec dd if=%s bs=1M status=none\n", r.source)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "fcgiwrap", "-c", "2", "-s", "unix:"+filepath.Join(r.dir, "fcgiwrap.sock"))
	if err := r.start(cmd); err != nil {
		return err
	}
	r.wrapped = true
	return nil
}

// serve starts a web server and waits until it accepts.
func (r *rivals) serve(ctx context.Context, port int, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	if err := r.start(cmd); err != nil {
		return err
	}
	for range 100 {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not accept on port %d", args[0], port)
}

// start starts a server in a process group of its own, with all that it will
// fork: close ends the group, a cancel kills it.
func (r *rivals) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return err
	}
	r.servers = append(r.servers, cmd)
	return nil
}

func (r *rivals) close() {
	for _, p := range r.proxies {
		p.Close()
	}
	for _, s := range r.servers {
		_ = syscall.Kill(-s.Process.Pid, syscall.SIGTERM) // fcgiwrap does not end its children
		_ = s.Wait()
	}
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (r *rivals) contenders() []*contender {
	target := filepath.Join(r.dir, "copy.img")
	var all []*contender
	add := func(name, format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		all = append(all, &contender{name: name, target: target, run: func(ctx context.Context) error {
			out, err := exec.CommandContext(ctx, "bash", "-c", "set -e -o pipefail; "+line).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return r.whole(target)
		}})
	}
	curl := fmt.Sprintf("curl -sSf --http1.1 --cacert %s --cert %s --key %s -o %s", r.ca, r.cert, r.key, target)
	file := filepath.Base(r.source)
	for _, s := range []struct {
		name string
		port int
	}{{"lighttpd", r.lighttpd}, {"nginx", r.nginx}} {
		if s.port == 0 {
			continue
		}
		add("curl to file, "+s.name, "%s https://127.0.0.1:%d/%s", curl, s.port, file)
		if installed("b3sum") {
			add("curl + sync + b3sum, "+s.name, "%s https://127.0.0.1:%d/%s && sync %s && b3sum %s", curl, s.port, file, target, target)
		}
		if r.wrapped {
			add("curl from fcgiwrap + dd, "+s.name, "%s https://127.0.0.1:%d/wrapped", curl, s.port)
		}
	}
	if r.nginx > 0 && installed("rclone") {
		add("rclone over https, 4 streams, + sync + b3sum, nginx", "rclone copyto :http:%s %s --http-url https://127.0.0.1:%d/ --ca-cert %s --client-cert %s --client-key %s --multi-thread-streams 4 --multi-thread-cutoff 64M --config /dev/null && sync %[2]s && b3sum %[2]s",
			file, target, r.nginx, r.ca, r.cert, r.key)
	}
	if installed("socat", "dd") {
		port := freePort()
		add("socat + openssl + dd conv=fsync",
			"(dd if=%s bs=1M status=none | socat -u -b 1048576 STDIN OPENSSL-LISTEN:%d,bind=127.0.0.1,reuseaddr,cert=%s,key=%s,cafile=%s,verify=1) & "+
				"socat -u -b 1048576 OPENSSL:127.0.0.1:%d,retry=20,interval=0.1,cert=%s,key=%s,cafile=%s,verify=1 STDOUT | dd of=%s bs=1M iflag=fullblock conv=fsync status=none; wait",
			r.source, port, r.serverCert, r.srvKey, r.ca, port, r.cert, r.key, r.ca, target)
	}
	return all
}

// whole makes sure that a rival did its work before its time counts.
func (r *rivals) whole(target string) error {
	want, err := os.Stat(r.source)
	if err != nil {
		return err
	}
	got, err := os.Stat(target)
	if err != nil {
		return err
	}
	if got.Size() != want.Size() {
		return fmt.Errorf("%s has %d of %d bytes", strings.TrimPrefix(target, r.dir), got.Size(), want.Size())
	}
	return nil
}
