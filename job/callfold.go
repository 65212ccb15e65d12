package job

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gantry/api"
	"gantry/feedback"
	"gantry/nodeset"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A NodeAnswer is what a call's feed says about one node.
type NodeAnswer struct {
	Node    string
	Outcome api.Outcome
	Err     *feedback.Error // of a node that is not done
	api.CallAnswer
}

// CallAnswerOf reads a record of a call's feed; ok is false for one that is not
// about a node's end.
func CallAnswerOf(rec feedback.Record) (a NodeAnswer, ok bool) {
	t, ok := rec.Body.(*feedback.Task)
	if !ok {
		return a, false
	}
	inner, err := feedback.Decode(t.Record)
	if err != nil || !inner.Kind.Final() {
		return a, false
	}
	a = NodeAnswer{Node: t.Node, Outcome: api.OutcomeOf(&inner)}
	switch body := inner.Body.(type) {
	case *feedback.Result:
		err = json.Unmarshal(body.Value, &a.CallAnswer)
	case *feedback.Error:
		a.Err = body
		if len(body.Detail) > 0 {
			err = json.Unmarshal(body.Detail, &a.CallAnswer)
		}
	}
	return a, err == nil
}

// Answers are those in the feed of a call, in the order in which they came; nodes
// of the call that have none yet are not tried.
func (j *Job) Answers() ([]NodeAnswer, error) {
	var all []NodeAnswer
	seen := map[string]bool{}
	err := j.stored(func(rec feedback.Record) {
		if a, ok := CallAnswerOf(rec); ok {
			all = append(all, a)
			seen[a.Node] = true
		}
	})
	if err != nil {
		return nil, err
	}
	if j.Spec.Call != nil {
		for _, node := range callTargets(j.Spec.Call) {
			if !seen[node] {
				all = append(all, NodeAnswer{Node: node, Outcome: api.NotTried, Err: api.Untried.Err(node + ": not tried: the call stopped before its end")})
			}
		}
	}
	return all, nil
}

// RetryCall is a call of those nodes whose outcome is one of only, or of all
// that are not done when only is empty. of is the id of the job that all came
// from. ok is false when there are none.
func RetryCall(spec *api.CallSpec, of string, all []NodeAnswer, only []api.Outcome) (*api.CallSpec, bool) {
	again := *spec
	again.Nodes, again.Sample, again.Seed, again.RetryOf = nil, 0, 0, of
	wanted := map[string]bool{}
	for _, a := range all {
		wanted[a.Node] = len(only) == 0 && a.Outcome != api.Done || slices.Contains(only, a.Outcome)
	}
	for _, node := range spec.Nodes {
		if wanted[node] {
			again.Nodes = append(again.Nodes, node)
		}
	}
	return &again, len(again.Nodes) > 0
}

// A Group is nodes with the same outcome and the same answer.
type Group struct {
	Outcome api.Outcome
	Nodes   []string
	Text    string // the answer as indented JSON without what differs from node to node anyway; of an error its code and message
}

// Set is the group's nodes as a set.
func (g *Group) Set() string { return nodeset.Fold(g.Nodes) }

// own are the members of an operation's answer that belong to one node or one
// moment: they make no two answers different.
var own = map[string][]string{
	api.CallStatus: {"node", "time", "dir_id", "tasks"},
	api.CallCheck:  {"node"},
}

// FoldAnswers groups the answers to an operation: equal ones are one group only
// when the outcome is equal too. The largest group of nodes that are done comes
// first; those that are not done come last.
func FoldAnswers(op string, all []NodeAnswer) []Group {
	at := map[string]int{}
	var groups []Group
	for _, a := range all {
		text := answerText(op, &a)
		key := string(a.Outcome) + "\x00" + text
		i, ok := at[key]
		if !ok {
			i = len(groups)
			at[key] = i
			groups = append(groups, Group{Outcome: a.Outcome, Text: text})
		}
		groups[i].Nodes = append(groups[i].Nodes, a.Node)
	}
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(
			compareBool(a.Outcome != api.Done, b.Outcome != api.Done),
			cmp.Compare(len(b.Nodes), len(a.Nodes)),
			strings.Compare(a.Set(), b.Set()),
		)
	})
	return groups
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func answerText(op string, a *NodeAnswer) string {
	if a.Err != nil {
		// A message begins with its node and may name it again.
		text := strings.TrimPrefix(a.Err.Message, a.Node+": ")
		return fmt.Sprintf("%s (%s)", text, a.Err.Code)
	}
	return comparableText(op, a.Answer)
}

func comparableText(op string, answer api.Raw) string {
	var members map[string]api.Raw
	if names := own[op]; names != nil && json.Unmarshal(answer, &members) == nil {
		for _, name := range names {
			delete(members, name)
		}
		answer = api.Encode(members)
	}
	v := slices.Clone(answer)
	if err := v.Canonicalize(jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false)); err != nil {
		return string(answer)
	}
	if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
		return string(answer)
	}
	return string(v)
}
