package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"gantry/access"
	"gantry/api"
	"gantry/fastcgi"
	"gantry/feedback"
	"gantry/pki"

	"github.com/gorilla/mux"
)

// HealthPath answers whether the program works, and ReadyPath whether it takes
// work, to the front, to the program's own uid and to local callers, without
// certificate.
const (
	HealthPath = "/healthz"
	ReadyPath  = "/readyz"
)

// A Handler answers one request. An error that it returns before anything was
// written becomes the reply; later it is logged only.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Config of a Shell. All fields but Log and Health are needed.
type Config struct {
	Prefix   string
	Routes   []api.Route
	Handlers map[string]Handler // by Route.Name
	Verifier *pki.Verifier
	Front    Front
	// Authorize judges a caller who is known, before the handler runs.
	Authorize func(access.Caller, api.Route, map[string]string) error
	// Refused is told of a request that was refused before its handler ran, with
	// who asked as far as that is known; nil: nobody is.
	Refused func(c access.Caller, route api.Route, vars map[string]string, err error)
	// Observe is told of every request that is over; nil: nobody is.
	Observe func(route string, status int, took time.Duration)
	// Health is nil or says why the program does not work, Ready why it takes no
	// work; without Ready there is no ReadyPath.
	Health, Ready func() error
	DirID         string
	Log           *slog.Logger // nil discards
}

// A Shell serves the routes. It is safe for concurrent use.
type Shell struct {
	config Config
	router *mux.Router
	// by path pattern, then method
	routes map[string]map[string]api.Route
	cross  *http.CrossOriginProtection
	log    *slog.Logger
}

// New builds the router. Every route must have a handler, and every handler a
// route.
func New(c Config) (*Shell, error) {
	s := &Shell{config: c, router: mux.NewRouter().SkipClean(true), routes: map[string]map[string]api.Route{},
		cross: http.NewCrossOriginProtection(), log: c.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	used := map[string]bool{}
	for _, route := range c.Routes {
		if c.Handlers[route.Name] == nil {
			return nil, fmt.Errorf("route %s %s has no handler", route.Method, route.Path)
		}
		used[route.Name] = true
		pattern := c.Prefix + route.Path
		if s.routes[pattern] == nil {
			s.routes[pattern] = map[string]api.Route{}
			s.router.Path(pattern).Name(pattern)
		}
		if _, twice := s.routes[pattern][route.Method]; twice {
			return nil, fmt.Errorf("route %s %s is there twice", route.Method, route.Path)
		}
		s.routes[pattern][route.Method] = route
	}
	for name := range c.Handlers {
		if !used[name] {
			return nil, fmt.Errorf("handler %s has no route", name)
		}
	}
	return s, nil
}

// call is what is known of a request, for its handler and for the log.
type call struct {
	route  string
	caller access.Caller
	known  bool
	task   string
}

type callKey struct{}

func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// Caller is who asks; the zero Caller only for routes that need none (crl).
func Caller(ctx context.Context) access.Caller {
	if c := callFrom(ctx); c != nil {
		return c.caller
	}
	return access.Caller{}
}

// ServeHTTP answers a request that came through package fastcgi.
func (s *Shell) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	c := &call{}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	reply := &reply{ResponseWriter: w}
	err := s.answer(reply, r, c)
	if err != nil && reply.status == 0 {
		s.problem(reply, r, Wire(err))
	}
	took := time.Since(begin)
	s.record(r, c, reply, err, took)
	if s.config.Observe != nil {
		s.config.Observe(c.route, reply.status, took)
	}
}

// answer runs the checks in the order in which they reveal least, then the
// handler.
func (s *Shell) answer(w http.ResponseWriter, r *http.Request, c *call) error {
	switch {
	case r.URL.Path == HealthPath:
		c.route = "healthz"
		return s.health(w, r, s.config.Health)
	case r.URL.Path == ReadyPath && s.config.Ready != nil:
		c.route = "readyz"
		return s.health(w, r, s.config.Ready)
	}
	methods, vars := s.find(r)
	route, found := methods[r.Method]
	c.route = route.Name
	if err := s.admit(w, r, c, methods, route, found, vars); err != nil {
		if s.config.Refused != nil {
			s.config.Refused(c.caller, route, vars, err)
		}
		return err
	}
	ctx := r.Context()
	if c.known && c.caller.Cert != nil {
		var stop func()
		ctx, stop = recheck(ctx, s.config.Verifier, c.caller)
		defer stop()
	}
	r = mux.SetURLVars(r.WithContext(ctx), vars)
	err := s.config.Handlers[route.Name](w, r)
	if cause := context.Cause(ctx); errors.Is(cause, ErrRevoked) {
		return cause
	}
	return err
}

// admit decides whether the handler may run, and notes who asks.
func (s *Shell) admit(w http.ResponseWriter, r *http.Request, c *call, methods map[string]api.Route, route api.Route, found bool, vars map[string]string) error {
	caller, err := s.identify(r)
	if err != nil && !(route.Name == api.RouteCRL && Wire(err).Code == api.StaleCRL.Name) {
		return err
	}
	c.caller, c.known = caller, err == nil
	if err := s.checkRequest(r, methods, found); err != nil {
		if methods != nil && !found {
			w.Header().Set("Allow", allow(methods))
		}
		return err
	}
	if id, ok := vars["id"]; ok && api.ValidID(id) {
		c.task = id
	}
	if err := checkBody(r, route); err != nil {
		return err
	}
	return s.config.Authorize(caller, route, vars)
}

// identify finds out who asks: a process of this machine, or whom the front's
// parameters prove.
func (s *Shell) identify(r *http.Request) (access.Caller, error) {
	if local := localFrom(r.Context()); local != nil {
		return access.Caller{Local: &local.who}, local.err
	}
	params := fastcgi.ParamsFrom(r.Context())
	if err := s.checkFront(r, params); err != nil {
		return access.Caller{}, err
	}
	return access.Identify(params, s.config.Verifier, time.Now())
}

// find looks the path up; methods is nil when no route has it.
func (s *Shell) find(r *http.Request) (methods map[string]api.Route, vars map[string]string) {
	var match mux.RouteMatch
	if !s.router.Match(r, &match) || match.Route == nil {
		return nil, nil
	}
	return s.routes[match.Route.GetName()], match.Vars
}

func (s *Shell) checkRequest(r *http.Request, methods map[string]api.Route, found bool) error {
	if methods == nil {
		return api.NotFound.Err("there is no such route")
	}
	if !found {
		return api.BadMethod.Err("this route takes " + allow(methods))
	}
	if _, ok := r.Header[api.FenceHeader]; ok {
		return api.BadRequest.Err("the header " + api.FenceHeader + " is reserved")
	}
	if err := s.cross.Check(r); err != nil {
		return api.CrossSite.Err("a page of another site may not ask this")
	}
	return nil
}

func allow(methods map[string]api.Route) string {
	names := make([]string, 0, len(methods))
	for m := range methods {
		names = append(names, m)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (s *Shell) health(w http.ResponseWriter, r *http.Request, healthy func() error) error {
	if local := localFrom(r.Context()); local != nil {
		if local.err != nil {
			return local.err
		}
	} else if peer, ok := fastcgi.PeerFrom(r.Context()); !ok || !s.AllowPeer(peer) {
		return api.BadFront.Err("requests are taken from the front only")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return api.BadMethod.Err("this route takes GET, HEAD")
	}
	if healthy != nil {
		if err := healthy(); err != nil {
			return err
		}
	}
	return JSON(w, http.StatusOK, map[string]bool{"ok": true})
}

// record writes the request's one log line. The query is left out: it can hold
// paths; so is every header: one of them is a ticket.
func (s *Shell) record(r *http.Request, c *call, w *reply, err error, took time.Duration) {
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("route", c.route), slog.String("method", feedback.Printable(r.Method)),
		slog.Int("status", w.status), slog.Int64("bytes", w.bytes), slog.Duration("took", took),
	}
	if c.known {
		attrs = append(attrs, slog.String("caller", c.caller.String()))
	}
	if c.task != "" {
		attrs = append(attrs, slog.String("task", c.task))
	}
	switch wire := Wire(err); {
	case err == nil:
	case left(err):
		attrs = append(attrs, slog.String("ended", err.Error()))
	default:
		if level = slog.LevelWarn; api.CodeOf(wire.Code) == api.Internal && !errors.Is(err, ErrRevoked) {
			level = slog.LevelError
		}
		attrs = append(attrs, slog.String("code", wire.Code), slog.String("err", feedback.Printable(err.Error())))
	}
	if (c.route == "healthz" || c.route == "readyz") && err == nil {
		level = slog.LevelDebug
	}
	s.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// reply remembers what was answered.
type reply struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *reply) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *reply) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find the rest.
func (r *reply) Unwrap() http.ResponseWriter { return r.ResponseWriter }
