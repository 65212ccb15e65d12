package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bounds of a bandwidth limit.
const (
	// MinRate is the least limit, in bytes per second, that is not 0 (none): the
	// content of a task shared by 16 connections still moves on each of them
	// every second, so neither front nor client takes it for dead.
	MinRate = 64 << 10
	// MaxRate is the greatest, 1 TiB/s: more is a typing error.
	MaxRate = 1 << 40
	// maxRateText is the longest text of a rate in bytes: "1099511627776B/s"
	// and some digits after a point.
	maxRateText = 32
)

// rateUnits are the letters of a rate: powers of 1024, as rsync's --bwlimit and
// curl's --limit-rate have them.
const rateUnits = "BKMGT"

// RateAllowed says what [ParseRate] takes.
const RateAllowed = "a number with unit K, M, G or T (each 1024 times the one before; bytes per second) from 64K to 1T, or 0 for no limit"

// ParseRate reads a bandwidth in bytes per second: 10M, 1.5m, 500k, 10MiB/s, or
// 0 for no limit. A unit is 1024 times the one before, whatever its case. A bare
// number is refused, because rsync means KiB by it and curl bytes; so is "MB",
// which is 1000 or 1024 times KB depending on whom one asks. A fraction is
// rounded down to whole bytes.
func ParseRate(s string) (int64, error) {
	if s == "0" {
		return 0, nil
	}
	if len(s) > maxRateText {
		return 0, fmt.Errorf("the rate has %d bytes, more than %d", len(s), maxRateText)
	}
	digits := len(s) - len(strings.TrimLeft(s, "0123456789."))
	unit := strings.ToUpper(strings.TrimSuffix(s[digits:], "/s"))
	if unit == "" {
		return 0, fmt.Errorf("%q has no unit: %sK is %s KiB per second", s, s[:digits], s[:digits])
	}
	power := strings.Index(rateUnits, unit[:1])
	if rest := unit[1:]; power < 0 || rest != "" && (rest != "IB" || power == 0) {
		return 0, fmt.Errorf("%q has the unknown unit %q", s, s[digits:])
	}
	n, err := strconv.ParseFloat(s[:digits], 64)
	if err != nil {
		return 0, fmt.Errorf("%q does not begin with a number", s)
	}
	rate := math.Floor(n * float64(int64(1)<<(10*power)))
	switch {
	case n == 0:
		return 0, fmt.Errorf("%q has a unit: no limit is 0 alone", s)
	case rate < MinRate:
		return 0, fmt.Errorf("%q is less than the least limit, 64K", s)
	case rate > MaxRate:
		return 0, fmt.Errorf("%q is more than the greatest limit, 1T", s)
	}
	return int64(rate), nil
}

// FormatRate is the shortest text that ParseRate reads as n.
func FormatRate(n int64) string {
	if n == 0 {
		return "0"
	}
	unit := 0
	for unit < len(rateUnits)-1 && n%1024 == 0 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + rateUnits[unit:unit+1]
}
