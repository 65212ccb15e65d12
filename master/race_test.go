//go:build race

package master

// raceSeeds: the race detector costs ten times the time, and the simulation runs
// once without it.
const raceSeeds = 200
