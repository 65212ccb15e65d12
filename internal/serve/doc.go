// Package serve is what every HTTP API of the project does around its
// handlers: it finds the route in the route table, decides who asks, refuses
// what a route does not take, renders errors as problem JSON (RFC 9457) and
// writes one log line per request.
//
//	shell, err := serve.New(serve.Config{
//		Prefix: api.Prefix, Routes: api.Routes,
//		Handlers: map[string]serve.Handler{api.RouteStatus: n.status, …},
//		Verifier: verifier, Front: serve.Front{UIDs: cfg.Front.UIDs, Token: token},
//		Authorize: n.authorize, DirID: n.dirID, Log: log,
//	})
//	srv := &fastcgi.Server{Handler: shell, AllowPeer: shell.AllowPeer}
//
// A handler returns an error instead of writing one. Who asks is Caller(ctx);
// the request's context ends with ErrRevoked as its cause when the caller's
// certificate is revoked or expires while the reply is still being written.
//
// It holds no route of its own but /healthz, and knows no tasks and no store.
package serve
