package api_test

import (
	"strings"
	"testing"
	"time"

	"gantry/api"

	"github.com/stretchr/testify/require"
)

func TestIDs(t *testing.T) {
	id := api.NewID()
	require.True(t, api.ValidID(id))
	require.WithinDuration(t, time.Now(), api.IDTime(id), time.Second)
	require.Equal(t, "2022-02-22T19:22:22Z", api.IDTime("017f22e2-79b0-7cc3-98c4-dc0c0c07398f").Format(time.RFC3339), "the example of RFC 9562, A.6")
	for _, bad := range []string{"", "x", strings.ToUpper(id), "{" + id + "}", "urn:uuid:" + id, strings.ReplaceAll(id, "-", ""), id + " ", "f47ac10b-58cc-4372-8567-0e02b2c3d479", "017f22e2-79b0-7cc3-18c4-dc0c0c07398f"} {
		require.False(t, api.ValidID(bad), "%q", bad)
	}
}

func TestTickets(t *testing.T) {
	a, b := api.NewTicket(), api.NewTicket()
	require.NotEqual(t, a, b)
	require.Regexp(t, "^[0-9a-f]{64}$", a)
	require.Equal(t, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", api.TicketSHA256("abc"), "of the characters")
}

func TestDepth(t *testing.T) {
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	var v any
	require.NoError(t, api.DecodeBytes(nested(api.MaxDepth), &v))
	require.ErrorIs(t, api.DecodeBytes(nested(api.MaxDepth+1), &v), api.ErrDepth)
	v = nil
	require.NoError(t, api.DecodeBytes([]byte(`"`+strings.Repeat(`[\"`, 40)+`"`), &v), "brackets in a text are none")
}
