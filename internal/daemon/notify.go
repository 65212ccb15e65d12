package daemon

import (
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A Notifier tells systemd how the program is: ready, alive, stopping; see
// sd_notify(3). Elsewhere it does nothing.
type Notifier struct {
	log  *slog.Logger
	done chan struct{}
	work sync.WaitGroup
}

// Ready says that the program serves, and from then on that it lives. Call Stop.
func Ready(log *slog.Logger) *Notifier {
	n := &Notifier{log: log, done: make(chan struct{})}
	n.tell(daemon.SdNotifyReady)
	if every, err := daemon.SdWatchdogEnabled(false); err == nil && every > 0 {
		n.work.Go(func() { n.alive(every / 2) })
	}
	return n
}

// alive feeds the watchdog: a process that cannot even do this is stuck.
func (n *Notifier) alive(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.tell(daemon.SdNotifyWatchdog)
		case <-n.done:
			return
		}
	}
}

func (n *Notifier) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.log.Warn("telling systemd", "state", state, "err", err)
	}
}

// Stopping says that the program drains.
func (n *Notifier) Stopping() { n.tell(daemon.SdNotifyStopping) }

// Stop ends the watchdog; the drain has been told before.
func (n *Notifier) Stop() {
	close(n.done)
	n.work.Wait()
}
