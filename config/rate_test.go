package config_test

import (
	"strings"
	"testing"

	"gantry/config"

	"github.com/stretchr/testify/require"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "64K": 64 << 10, "500k": 500 << 10, "1.5m": 3 << 19, "10M": 10 << 20, "10MiB": 10 << 20, "10MiB/s": 10 << 20,
		"1g": 1 << 30, "1T": 1 << 40, "65536B": 65536, "100000b/s": 100000, ".5M": 1 << 19, "0.1M": 104857,
	} {
		got, err := config.ParseRate(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, why := range map[string]string{
		"1000": "has no unit: 1000K", "": "has no unit", "10MB": "unknown unit", "10KB/s": "unknown unit", "10x": "unknown unit", "10M/m": "unknown unit",
		"M": "does not begin with a number", "1.2.3M": "does not begin with a number", "-1M": "unknown unit", "1 M": "unknown unit", "1BiB": "unknown unit",
		"63K": "less than the least limit", "1B": "less than the least limit", "0K": "no limit is 0 alone", "1.1T": "more than the greatest",
		"99999999999999999999T": "more than the greatest", strings.Repeat("1", 40) + "K": "more than 32", "1e3K": "unknown unit", "0x10M": "unknown unit", "İ": "unknown unit",
	} {
		_, err := config.ParseRate(text)
		require.ErrorContains(t, err, why, text)
	}
}

func TestFormatRate(t *testing.T) {
	for want, n := range map[string]int64{"0": 0, "64K": 64 << 10, "1536K": 3 << 19, "4M": 4 << 20, "1T": 1 << 40, "70001B": 70001} {
		require.Equal(t, want, config.FormatRate(n))
	}
}

func FuzzRate(f *testing.F) {
	for _, s := range []string{"0", "64K", "1.5m", "10MiB/s", "1000", "10MB", "M", "63K", "2T", "0K", "1.2.3K", strings.Repeat("9", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := config.ParseRate(s)
		if err != nil {
			require.Zero(t, n)
			require.Less(t, len(err.Error()), 400) // two times 32 bytes, each four characters when escaped
			return
		}
		require.True(t, n == 0 || n >= config.MinRate && n <= config.MaxRate)
		again, err := config.ParseRate(config.FormatRate(n))
		require.NoError(t, err)
		require.Equal(t, n, again)
	})
}
