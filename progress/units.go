package progress

import (
	"fmt"
	"strconv"
	"time"
)

// Bytes is a human size: "999 B", "1.2 GB".
func Bytes(n int64) string {
	if n < 0 {
		return "-" + Bytes(-max(n, -1<<62))
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n), 0
	for value >= 999.95 && unit < len(prefixes) {
		value /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %cB", value, prefixes[unit-1])
}

const prefixes = "kMGTPE"

// Rate is a human speed.
func Rate(perSecond float64) string { return Bytes(int64(perSecond)) + "/s" }

// Duration is a human time: "0.4 s", "12 s", "3 min 20 s", "2 h 05 min".
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-max(d, -1<<62))
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 59500*time.Millisecond:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %02d s", d/time.Minute, d%time.Minute/time.Second)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%d h %02d min", d/time.Hour, d%time.Hour/time.Minute)
}

// amount is n in the unit of an item.
func amount(n int64, unit string) string {
	if unit == "bytes" || unit == "" {
		return Bytes(n)
	}
	return fmt.Sprintf("%d %s", n, unit)
}
