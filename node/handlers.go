package node

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"gantry/api"
	"gantry/feedback"
	"gantry/front/selftest"
	"gantry/internal/serve"

	"github.com/gorilla/mux"
	"golang.org/x/time/rate"
)

func (n *Node) newShell() (*serve.Shell, error) {
	n.selftest = selftest.New(selftest.Options{})
	return serve.New(serve.Config{
		Prefix: api.Prefix, Routes: api.Routes, Handlers: n.handlers(),
		Verifier: n.gate.Verifier, Front: serve.Front{UIDs: n.cfg.Front.UIDs, Token: n.gate.Token},
		Authorize: n.authorize, Health: n.health, DirID: n.folder.id, Log: n.log,
	})
}

// handlers is the other half of the route table.
func (n *Node) handlers() map[string]serve.Handler {
	return map[string]serve.Handler{
		api.RouteStatus:    n.serveStatus,
		api.RouteResources: n.serveResources,
		api.RouteFiles:     n.serveFiles,
		api.RouteCheck:     n.serveCheck,
		api.RouteStart:     n.serveStart,
		api.RouteTasks:     n.serveTasks,
		api.RouteTask:      n.serveTask,
		api.RouteFeed:      n.serveFeed,
		api.RouteCancel:    n.serveCancel,
		api.RouteAck:       n.serveAck,
		api.RouteLimit:     n.serveLimit,
		api.RouteManifest:  n.serveManifest,
		api.RouteContent:   n.serveContent,
		api.RoutePieces:    n.servePieces,
		api.RouteFinish:    n.serveFinish,
		api.RouteMissing:   n.serveMissing,
		api.RoutePutLines:  n.servePutPart,
		api.RoutePutFrames: n.servePutPart,
		api.RoutePutBytes:  n.servePutBytes,
		api.RouteReach:     n.serveReach,
		api.RouteCRL:       n.serveCRL,
		api.RouteSelftest: func(w http.ResponseWriter, r *http.Request) error {
			n.selftest.ServeHTTP(w, r)
			return nil
		},
	}
}

func (n *Node) serveStart(w http.ResponseWriter, r *http.Request) error {
	var req api.TaskRequest
	if err := serve.ReadJSON(w, r, &req); err != nil {
		return err
	}
	t, err := n.start(r.Context(), serve.Caller(r.Context()), &req)
	if err != nil {
		return err
	}
	return n.stream(w, r, t, 0)
}

func (n *Node) serveFeed(w http.ResponseWriter, r *http.Request) error {
	t, err := n.own(r)
	if err != nil {
		return err
	}
	after, err := number(r, "after", 0, 0, maxNumber)
	if err != nil {
		return err
	}
	return n.stream(w, r, t, after)
}

func (n *Node) stream(w http.ResponseWriter, r *http.Request, t *task, after int64) error {
	if n.isDraining() {
		return draining()
	}
	f, release, err := t.useFeed()
	if err != nil {
		return err
	}
	defer release()
	o := feedback.WriterOptions{Padding: n.cfg.Front.Padding, Incremental: n.cfg.Front.Incremental}
	err = serve.Feed(w, r, f, after, t.hello(), o, n.feeds)
	if errors.Is(err, feedback.ErrClosed) || err != nil && f.Err() != nil {
		// The task exists and goes on after a restart. Any refusal but this one
		// would tell the caller of a start that it never began.
		return fmt.Errorf("%w: %w", draining(), err)
	}
	return err
}

// own finds the task that the path names, if it is the caller's.
func (n *Node) own(r *http.Request) (*task, error) {
	return n.find(mux.Vars(r)["id"], serve.Caller(r.Context()))
}

func (n *Node) serveTask(w http.ResponseWriter, r *http.Request) error {
	t, err := n.own(r)
	if err != nil {
		return err
	}
	info, err := t.info(true)
	if err != nil {
		return err
	}
	return serve.JSON(w, http.StatusOK, info)
}

// tasksPage is the entries of a page of GET tasks.
const tasksPage = 100

func (n *Node) serveTasks(w http.ResponseWriter, r *http.Request) error {
	size, err := number(r, "n", tasksPage, 1, api.MaxPageSize)
	if err != nil {
		return err
	}
	cursor := r.URL.Query().Get("cursor")
	who := serve.Caller(r.Context()).ID.String()
	var mine []*task
	for _, t := range n.all() {
		if t.who == who && (cursor == "" || t.id < cursor) {
			mine = append(mine, t)
		}
	}
	// Ids begin with their time.
	slices.SortFunc(mine, func(a, b *task) int { return strings.Compare(b.id, a.id) })
	list := api.TaskList{Tasks: []api.TaskInfo{}}
	for i, t := range mine {
		if int64(i) == size {
			list.Next = mine[i-1].id
			break
		}
		info, err := t.info(false)
		if err != nil {
			return err
		}
		list.Tasks = append(list.Tasks, info)
	}
	return serve.JSON(w, http.StatusOK, list)
}

func (n *Node) serveCancel(w http.ResponseWriter, r *http.Request) error {
	t, err := n.own(r)
	if err != nil {
		return err
	}
	if n.isDraining() {
		return draining()
	}
	if err := t.remove(); err != nil {
		return err
	}
	info, err := t.info(false)
	if err != nil {
		return err
	}
	return serve.JSON(w, http.StatusAccepted, info)
}

func (n *Node) serveAck(w http.ResponseWriter, r *http.Request) error {
	var ack api.Ack
	if err := serve.ReadJSON(w, r, &ack); err != nil {
		return err
	}
	t, err := n.own(r)
	if err != nil {
		return err
	}
	if ack.Seq < 1 {
		return api.BadRequest.Err("seq: a number from 1 is needed")
	}
	f, release, err := t.useFeed()
	if err != nil {
		return err
	}
	defer release()
	if err := f.Ack(ack.Seq); err != nil {
		return err
	}
	if ended := t.snapshot().Ended; ended != nil && ack.Seq >= ended.Last {
		if err := t.reduce(); err != nil {
			return err
		}
	}
	return serve.JSON(w, http.StatusOK, ack)
}

// crlRate: a list is a signature to verify; ten at once are a push from
// everywhere, more are noise. Each caller has a limit of his own, or one who is
// to be revoked could keep the list away.
func (n *Node) crlRate(caller string) *rate.Limiter {
	n.mu.Lock()
	defer n.mu.Unlock()
	l, ok := n.crlRates[caller]
	if !ok {
		l = rate.NewLimiter(1, 10)
		n.crlRates[caller] = l
	}
	return l
}

func (n *Node) serveCRL(w http.ResponseWriter, r *http.Request) error {
	if !n.crlRate(serve.Caller(r.Context()).ID.String()).Allow() {
		return api.TooMany.Err("too many revocation lists in a short time")
	}
	data, err := serve.ReadBody(w, r, api.MaxCRL)
	if err != nil {
		return err
	}
	crl, err := n.gate.CRL.Put(data, now())
	if err != nil {
		return err
	}
	n.log.Info("revocation list replaced", "number", crl.Number.String(), "expires", stamp(crl.NextUpdate))
	return serve.JSON(w, http.StatusOK, n.crlInfo())
}

// maxNumber is the greatest integer that every JSON implementation keeps.
const maxNumber = 1<<53 - 1

// number reads a whole number from the query.
func number(r *http.Request, name string, otherwise, least, most int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most {
		return 0, api.BadRequest.Err(fmt.Sprintf("%s: allowed are %d to %d", name, least, most))
	}
	return n, nil
}
