package node

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"gantry/config"
)

// Options of Run and New. The zero value, with ConfigPath, works.
type Options struct {
	ConfigPath string       // of node.toml; Run only
	Log        *slog.Logger // nil discards
	Version    string       // shown by GET status; empty: from the build
}

// A Node is an open responder: its folder is locked, its tasks run.
type Node struct{}

// Run serves the node until ctx ends and everything has stopped. It refuses to
// run as root.
func Run(ctx context.Context, o Options) error { return errors.New("not written yet") }

// New opens a node's folder and takes up its unfinished tasks. Call Close.
func New(ctx context.Context, cfg *config.Node, o Options) (*Node, error) {
	return nil, errors.New("not written yet")
}

// Handler serves the node API. Requests must come from package fastcgi.
func (n *Node) Handler() http.Handler { return http.NotFoundHandler() }

// Close drains and closes the node; ctx bounds the wait.
func (n *Node) Close(ctx context.Context) error { return nil }
