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

// Counter is a number that grows while work goes on. *feedback.Item is one.
type Counter interface {
	Add(n int64)
	SetTotal(total int64)
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

func (silentCounter) Add(int64)       {}
func (silentCounter) SetTotal(int64)  {}
func (silentCounter) SetPhase(string) {}
func (silentCounter) End()            {}
