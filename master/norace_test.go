//go:build !race

package master

const raceSeeds = 2000
