// Package daemon is what every responder does around its work as a process: it
// reads its command line, makes its socket or takes over the one that a supervisor passed, tells systemd
// that it is ready and alive, and is asked for its health over FastCGI.
//
//	l, err := daemon.Listen("fcgi-app", cfg.Socket, cfg.From)
//	notify := daemon.Ready(log)
//	defer notify.Stop()
//	…
//	err = daemon.Probe(ctx, cfg.Socket)
//
// It puts nothing into the background and restarts nothing: that is the
// supervisor's work.
package daemon
