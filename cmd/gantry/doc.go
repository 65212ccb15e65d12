// Command gantry is the command line: it copies files between nodes, shows
// every step, and keeps its jobs on disk so that they survive the terminal.
//
//	gantry copy alpha:disks/vm1.img beta:disks/vm1.img
//	gantry watch JOB
//	gantry help
//
// Only main touches the process: arguments, signals, environment and exit.
// Everything else gets an env. It is not a daemon: nodes work on when it ends.
package main
