// Package fronttest holds lighttpd, nginx and the embedded front to one table
// of behaviour, with the configurations as they are shipped: only addresses,
// paths and users are filled in.
//
//	go test ./front/fronttest -run 'TestConformance/nginx'
//
// Each row makes one thing happen and says in a few words what was observed;
// the table says what is expected of each front, and where fronts differ, why.
// Servers, responder and clients are separate processes or at least separate
// sockets; started as root, the front runs as uid 58261 and the responder as
// uid 58260.
//
// It is no benchmark: bounds are generous, because the machine may be busy.
// "gantry front check" runs the harmless part against a live front.
package fronttest
