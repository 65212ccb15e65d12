//go:build race

package transfer_test

// raceDetector: memory is another one with it.
const raceDetector = true
