package fronttest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/config"
	"gantry/fastcgi"
	"gantry/front"
	"gantry/front/selftest"
	"gantry/internal/testkit"
	"gantry/pki"
)

// TestMain is also the responder and the embedded front, when this program is
// started again as one of them.
func TestMain(m *testing.M) {
	switch os.Getenv("GANTRY_FRONTTEST") {
	case "responder":
		exit(respond())
	case "embedded":
		exit(embed())
	}
	starts() // before the kit counts goroutines
	testkit.Parallel(12)
	testkit.Main(m)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// responderConfig is what a responder process is told.
type responderConfig struct {
	Kind    front.Kind
	Socket  string
	CA, CRL string
	Sent    string // folder of files sent by the front
	Front   uint32 // uid that may speak to us
	Base    time.Time
}

// The feed of the suite: line n is due at Base + n × feedEvery.
const (
	feedEvery = 10 * time.Millisecond
	feedLines = 6000 // 60 s
)

// respond is the responder: the self tests, judged as a node judges.
func respond() error {
	var c responderConfig
	if err := json.Unmarshal([]byte(os.Getenv("GANTRY_FRONTTEST_CONFIG")), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	h, err := c.handler()
	if err != nil {
		return err
	}
	os.Remove(c.Socket)
	l, err := net.Listen("unix", c.Socket)
	if err != nil {
		return err
	}
	// Who may speak is decided by uid; the mode only keeps strangers away.
	if err := os.Chmod(c.Socket, 0o660); err != nil {
		return err
	}
	s := &fastcgi.Server{
		Handler: h, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		AllowPeer: func(p fastcgi.Peer) bool { return p.UID == c.Front },
	}
	go func() {
		<-ctx.Done()
		s.Close()
	}()
	if err := s.Serve(l); err != fastcgi.ErrServerClosed {
		return err
	}
	return nil
}

func (c responderConfig) handler() (http.Handler, error) {
	ca, err := pki.LoadCA(c.CA)
	if err != nil {
		return nil, err
	}
	crl, err := pki.OpenCRLStore(c.CRL, ca)
	if err != nil {
		return nil, err
	}
	policy := access.NewPolicy([]config.Grant{{
		Who: "spiffe://" + clusterName + "/operator/*", May: []string{string(api.MaySelftest)},
	}}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	mux := http.NewServeMux()
	mux.Handle(selftest.Prefix, selftest.New(selftest.Options{Danger: true}))
	mux.HandleFunc("GET "+api.Prefix+"/feed", c.feed)
	mux.HandleFunc(api.Prefix+"/sent", c.sent)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "the responder was asked for "+r.RequestURI, http.StatusTeapot)
	})
	verifier := &pki.Verifier{CA: ca, CRL: crl}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := access.Identify(fastcgi.ParamsFrom(r.Context()), verifier, time.Now())
		if err == nil {
			err = policy.Allows(caller, api.MaySelftest, "")
		}
		if err != nil {
			http.Error(w, "refused by the responder: "+err.Error(), http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	}), nil
}

// feed sends the lines after "after": those that are due at once, the others
// when they are.
func (c responderConfig) feed(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.Atoi(r.URL.Query().Get("after"))
	w.Header().Set("Content-Type", api.TypeFeed)
	w.Header().Set("X-Accel-Buffering", "no") // as every feed says
	rc := http.NewResponseController(w)
	for n := after + 1; n <= feedLines; n++ {
		select {
		case <-time.After(time.Until(c.Base.Add(time.Duration(n) * feedEvery))):
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, "%d\n", n)
		if rc.Flush() != nil {
			return
		}
	}
}

// sent hands a file over to the front, judging nothing: what the front itself
// does with ranges, links and dots shows.
func (c responderConfig) sent(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("file")
	w.Header().Set("Content-Type", "application/x-from-responder")
	switch c.Kind {
	case front.Lighttpd:
		w.Header().Set("X-Sendfile", escape(c.Sent+"/"+name))
	case front.Nginx:
		w.Header().Set("X-Accel-Redirect", escape(front.SendPrefix+"disks/"+name))
	default:
		// The embedded front always streams.
		f, err := os.OpenInRoot(c.Sent, name)
		if err != nil {
			http.Error(w, "no such file", http.StatusNotFound)
			return
		}
		defer f.Close()
		w.Header().Set("ETag", selftest.RangeETag)
		http.ServeContent(w, r, "", time.Time{}, f)
	}
}

func escape(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// embeddedConfig is front.Options without its function.
type embeddedConfig struct {
	API, Data          []string
	Socket             string
	Cert, Key, CA, Dir string
	Token              string
}

// embed is the embedded front.
func embed() error {
	var c embeddedConfig
	if err := json.Unmarshal([]byte(os.Getenv("GANTRY_FRONTTEST_CONFIG")), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log, err := os.OpenFile(filepath.Join(c.Dir, "error.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	return front.Embedded(ctx, front.Options{
		API: c.API, Data: c.Data, Socket: c.Socket, Cert: c.Cert, Key: c.Key, CA: c.CA, Dir: c.Dir, Token: c.Token,
		Logf: func(format string, args ...any) { fmt.Fprintf(io.Writer(log), format+"\n", args...) },
	})
}
