package transfer

// Reporter receives what a transfer has to say. All methods may be called
// concurrently.
type Reporter interface {
	// State makes a state durable before it returns.
	State(name string, detail any) error
	// Log adds a line for people; level is "info", "warn" or "error".
	Log(level, item, text string)
	// Progress starts a counter; total is -1 when unknown.
	Progress(item, phase, unit string, total int64) Counter
}

// Counter is a number that grows while work goes on. *feedback.Item is one; see
// its methods. Each count costs one atomic operation.
type Counter interface {
	// Add counts what is done: of an import what is in its place. Came counts
	// bytes that came and are not done yet, Proved what is proved in memory,
	// Durable what is known to be on disk.
	Add(n int64)
	Came(n int64)
	Proved(n int64)
	Durable(n int64)
	// SetTotal sets an exact total, -1 for unknown; Estimate one that may change.
	SetTotal(total int64)
	Estimate(total int64)
	// Explain sets what says why nothing moves, when nothing does: one of the Why
	// texts of package feedback, or "". It must not wait.
	Explain(why func() string)
	SetPhase(phase string)
	End()
}

// Silent is a Reporter that keeps nothing, for tests and library use. Its State
// promises nothing, so a crash during publishing cannot be recovered with it.
type Silent struct{}

// State does nothing.
func (Silent) State(string, any) error { return nil }

// Log does nothing.
func (Silent) Log(string, string, string) {}

// Progress returns a Counter that does nothing.
func (Silent) Progress(string, string, string, int64) Counter { return silentCounter{} }

type silentCounter struct{}

func (silentCounter) Add(int64)             {}
func (silentCounter) Came(int64)            {}
func (silentCounter) Proved(int64)          {}
func (silentCounter) Durable(int64)         {}
func (silentCounter) SetTotal(int64)        {}
func (silentCounter) Estimate(int64)        {}
func (silentCounter) Explain(func() string) {}
func (silentCounter) SetPhase(string)       {}
func (silentCounter) End()                  {}
