package node

import (
	"context"
	"errors"
	"net/http"

	"gantry/api"
	"gantry/client"
	"gantry/feedback"
	"gantry/internal/serve"

	"github.com/gorilla/mux"
)

// maxReach bounds how many neighbours are asked at once.
const maxReach = 8

// serveReach says whether this node can dial a neighbour: who starts a copy asks
// both ends who may dial whom.
func (n *Node) serveReach(w http.ResponseWriter, r *http.Request) error {
	name := mux.Vars(r)["node"]
	reply := api.Reach{Node: name, Outcome: api.ReachUnknown, Message: "this node's cluster.toml does not name it"}
	if _, ok := n.neighbour(name); ok {
		select {
		case n.reaching <- struct{}{}:
			defer func() { <-n.reaching }()
		default:
			return api.TooMany.Err("too many neighbours are being asked")
		}
		c, err := n.peer(name)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(r.Context(), api.ReachWait, errNoAnswer)
		defer cancel()
		reply.Outcome, reply.Message = reached(c.Greet(ctx))
	}
	return serve.JSON(w, http.StatusOK, reply)
}

var errNoAnswer = errors.New("no answer within " + api.ReachWait.String())

// reached puts an error of a call into the closed set.
func reached(err error) (outcome, message string) {
	if err == nil {
		return api.ReachOK, ""
	}
	message = feedback.Printable(err.Error())
	switch client.AnswerTo(err) {
	case &client.WrongServer:
		return api.ReachOther, message
	case &client.WrongPin:
		return api.ReachPin, message
	case &client.CertRefused, &client.Refusal, &client.FrontRefuses:
		return api.ReachRefused, message
	}
	return api.ReachUnreachable, message
}
