package fronttest_test

import (
	"strings"
	"testing"

	"gantry/front"
	"gantry/pki"
)

func frontCheck(t *testing.T, w *world) string {
	conf := pki.ClientTLS(w.identity(t, pki.RoleOperator), nodeName, nil)
	var bad []string
	checks := front.CheckURL(t.Context(), "https://"+w.o.API[0], conf)
	for _, c := range checks {
		t.Logf("%-12s %-5v %s (%s)", c.Name, c.OK, c.Text, c.Detail)
		if !c.OK {
			bad = append(bad, c.Name+": "+c.Text)
		}
	}
	if len(checks) == 0 {
		return "nothing checked"
	}
	if len(bad) > 0 {
		return strings.Join(bad, "; ")
	}
	return "all good"
}
