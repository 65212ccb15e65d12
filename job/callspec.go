package job

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"gantry/api"
	"gantry/client"
	"gantry/nodeset"
)

// taskTimeout is how long a call waits for a node's task when nobody says.
const taskTimeout = time.Hour

// CheckCall refuses a call that cannot be meant. The error has code bad_spec and
// names the field as a JSON pointer within the spec.
func CheckCall(s *api.CallSpec) error {
	bad := func(field, format string, args ...any) error {
		return api.BadSpec.Err("/call" + field + ": " + fmt.Sprintf(format, args...))
	}
	if s == nil {
		return bad("", "is missing; a job of kind call says what to call")
	}
	switch {
	case len(s.Nodes) == 0 || len(s.Nodes) > api.MaxCallNodes:
		return bad("/nodes", "names %d nodes; allowed: 1 to %d", len(s.Nodes), api.MaxCallNodes)
	case s.Window < 0 || s.Window > api.MaxCallWindow:
		return bad("/window", "is %d; allowed: 1 to %d, 0 for %d", s.Window, api.MaxCallWindow, client.DefaultWindow)
	case s.Timeout < 0 || s.Timeout > api.MaxCallTimeout:
		return bad("/timeout", "is %d seconds; allowed: 1 to %d", s.Timeout, api.MaxCallTimeout)
	case s.Sample < 0 || s.Sample > len(s.Nodes):
		return bad("/sample", "is %d; allowed: 1 to %d, as many nodes as there are", s.Sample, len(s.Nodes))
	case len(s.Waves) > api.MaxCallWaves:
		return bad("/waves", "there are %d; allowed: at most %d", len(s.Waves), api.MaxCallWaves)
	}
	seen := map[string]bool{}
	for i, n := range s.Nodes {
		if names, err := nodeset.Parse(n, nodeset.Known{}); err != nil || len(names) != 1 || names[0] != n {
			return bad(fmt.Sprintf("/nodes/%d", i), "%q is no name of a node", n)
		}
		if seen[n] {
			return bad(fmt.Sprintf("/nodes/%d", i), "%q stands there twice", n)
		}
		seen[n] = true
	}
	if _, err := waves(s.Waves, len(s.Nodes)); err != nil {
		return bad("/waves", "%v", err)
	}
	if _, err := stopAfter(s.MaxFailed, len(s.Nodes)); err != nil {
		return bad("/max_failed", "%v", err)
	}
	return checkCallArgs(s, bad)
}

func checkCallArgs(s *api.CallSpec, bad func(field, format string, args ...any) error) error {
	op := api.CallOpOf(s.Op)
	if op == nil {
		var all []string
		for _, o := range api.CallOps {
			all = append(all, o.Name)
		}
		return bad("/op", "%q is no operation; allowed: %s", s.Op, strings.Join(all, ", "))
	}
	a := s.Args
	file := slices.Contains([]string{api.CallList, api.CallCheck, api.CallDigest}, s.Op)
	switch {
	case file != (a.Resource != ""), !file && a.Path != "", len(a.Resource) > api.MaxName, len(a.Path) > api.MaxPath:
		return bad("/args/resource", "does not fit; write %s", op.Usage)
	case (s.Op == api.CallReach) != (a.Node != ""):
		return bad("/args/node", "does not fit; write %s", op.Usage)
	case (s.Op == api.CallCRL) != (len(a.CRL) > 0):
		return bad("/args/crl", "does not fit; write %s", op.Usage)
	case len(a.CRL) > api.MaxCallCRL:
		return bad("/args/crl", "has %d bytes; allowed: at most %d, gantry ca crl --push sends longer ones", len(a.CRL), api.MaxCallCRL)
	case a.Full && s.Op != api.CallDigest:
		return bad("/args/full", "does not fit; write %s", op.Usage)
	}
	return nil
}

// share reads "3" or "10%" of n; up rounds a share up, else down.
func share(text string, n int, up bool) (int, error) {
	digits, percent := strings.CutSuffix(text, "%")
	most := api.MaxCallNodes
	if percent {
		most = 100
	}
	v, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || v > uint64(most) || strings.HasPrefix(digits, "+") {
		return 0, fmt.Errorf("%q is no number of nodes and no share; allowed: such as 3 or 10%%", text)
	}
	if !percent {
		return int(v), nil
	}
	if up {
		return (int(v)*n + 99) / 100, nil
	}
	return int(v) * n / 100, nil
}

// waves are the sizes of waves of n nodes; what they leave is a last one.
func waves(texts []string, n int) ([]int, error) {
	var sizes []int
	for i, text := range texts {
		if text == "rest" {
			if i < len(texts)-1 {
				return nil, fmt.Errorf("rest can only be the last wave")
			}
			break
		}
		size, err := share(text, n, true)
		switch {
		case err != nil:
			return nil, err
		case size == 0:
			return nil, fmt.Errorf("%q is a wave of no nodes", text)
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// stopAfter is Fan.StopAfter for a max_failed of n nodes.
func stopAfter(text string, n int) (int, error) {
	if text == "" {
		return 0, nil
	}
	most, err := share(text, n, false)
	return most + 1, err
}

// callTargets are the nodes that a call calls: all, or those of the sample, in
// the order in which they are named.
func callTargets(s *api.CallSpec) []string {
	if s.Sample == 0 || s.Sample >= len(s.Nodes) {
		return s.Nodes
	}
	chosen := rand.New(rand.NewPCG(s.Seed, 0)).Perm(len(s.Nodes))[:s.Sample]
	slices.Sort(chosen)
	nodes := make([]string, 0, s.Sample)
	for _, i := range chosen {
		nodes = append(nodes, s.Nodes[i])
	}
	return nodes
}

// callTimeout bounds each node of a call.
func callTimeout(s *api.CallSpec) time.Duration {
	switch {
	case s.Timeout > 0:
		return time.Duration(s.Timeout) * time.Second
	case s.Op == api.CallDigest:
		return taskTimeout
	}
	return client.DefaultTimeout
}

// callTasks makes one task for each node, with the node's name as role. Only
// those of digest are known to their nodes.
func callTasks(s *api.CallSpec) (map[string]*Task, error) {
	if err := CheckCall(s); err != nil {
		return nil, err
	}
	tasks := map[string]*Task{}
	for _, node := range callTargets(s) {
		t := newTask(node, s.Op, struct{}{})
		if s.Op == api.CallDigest {
			t = newTask(node, api.OpDigest, api.DigestArgs{File: api.File{Resource: s.Args.Resource, Path: s.Args.Path}, Full: s.Args.Full})
			// Whoever does not wait any more needs no answer.
			t.Request.RunFor = int64(callTimeout(s).Seconds())
		}
		tasks[node] = t
	}
	return tasks, nil
}

// callString is the command of a call without its flags.
func callString(s *api.CallSpec) string {
	if s == nil {
		return "call"
	}
	set := nodeset.Fold(s.Nodes)
	if len(set) > 60 {
		set = set[:57] + "..."
	}
	text := "call " + set + " " + s.Op
	switch {
	case s.Args.Resource != "" && s.Args.Path != "":
		text += " " + s.Args.Resource + "/" + s.Args.Path
	case s.Args.Resource+s.Args.Node != "":
		text += " " + s.Args.Resource + s.Args.Node
	}
	return text
}
