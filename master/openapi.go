package master

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gantry/api"
	"gantry/job"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An exchange is what a route takes and gives, beside what the route table says.
type exchange struct {
	summary string
	query   []string
	body    any // a struct of package api; nil: bytes of the route's media type, or none
	replies map[int]any
	media   string // of the reply; "" = JSON
	key     bool   // takes an idempotency key
}

// exchanges has a row for each route of the table.
var exchanges = map[string]exchange{
	api.RouteSubmit:       {summary: "Submit a job", body: api.JobRequest{}, replies: map[int]any{201: api.Job{}, 200: api.Job{}}, key: true},
	api.RouteJobs:         {summary: "List jobs, newest first", query: append(slices.Clone(jobFilters), "cursor", "limit"), replies: map[int]any{200: api.JobList{}}},
	api.RouteJob:          {summary: "Show a job with its attempts", replies: map[int]any{200: api.Job{}}},
	api.RouteJobFeed:      {summary: "Watch a job's feed: what is stored after a number, then what comes", query: []string{"after"}, replies: map[int]any{200: nil}, media: api.TypeFeed},
	api.RouteJobCancel:    {summary: "Ask for a job's end; abandon=true ends one that is unknown, without its node", query: []string{"abandon"}, replies: map[int]any{202: api.Job{}}},
	api.RouteRetry:        {summary: "Try an ended job again, as a new job", body: api.RetryRequest{}, replies: map[int]any{201: api.Job{}, 200: api.Job{}}, key: true},
	api.RouteRecords:      {summary: "Add records to a job that its owner drives", body: api.RecordsRequest{}, replies: map[int]any{200: api.RecordsReply{}}},
	api.RouteNodes:        {summary: "List nodes as the master sees them", replies: map[int]any{200: api.NodeList{}}},
	api.RouteMasterStatus: {summary: "Show how the master is and what the caller may do", replies: map[int]any{200: api.MasterStatus{}}},
	api.RouteAudit:        {summary: "Read the audit log, oldest first", query: []string{"after", "limit"}, replies: map[int]any{200: api.AuditList{}}},
	api.RouteOpenAPI:      {summary: "This document", replies: map[int]any{200: nil}},
	api.RouteMetrics:      {summary: "Metrics for Prometheus", replies: map[int]any{200: nil}, media: "text/plain"},
	api.RouteCRL:          {summary: "Replace the revocation list", replies: map[int]any{200: api.CRL{}}},
	api.RouteSelftest:     {summary: "What gantry front check asks", replies: map[int]any{200: nil}, media: "*/*"},
}

// enums are the types whose values are a closed set.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[api.JobState](): values(api.JobStates),
	reflect.TypeFor[api.Outcome]():  values([]api.Outcome{api.Done, api.Failed, api.Refused, api.Cancelled, api.Unknown, api.Unreachable, api.PinMismatch, api.NotTried}),
	reflect.TypeFor[api.Right]():    values(api.MasterRights),
}

func values[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

// object is a JSON object of the document.
type object map[string]any

// schemas turns Go types into JSON schemas, each struct once.
type schemas object

func (s schemas) of(t reflect.Type) object {
	if list, ok := enums[t]; ok {
		return object{"type": "string", "enum": list}
	}
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[jsontext.Value]():
		return object{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64, reflect.Float32:
		return object{"type": "number"}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.ref(t)
	}
	return object{"type": "integer"}
}

func (s schemas) ref(t reflect.Type) object {
	name := t.Name()
	if _, there := s[name]; !there {
		s[name] = nil // ends recursion
		properties, required := object{}, []string{}
		s.fields(t, properties, &required)
		slices.Sort(required)
		schema := object{"type": "object", "properties": properties, "additionalProperties": false}
		if len(required) > 0 {
			schema["required"] = required
		}
		s[name] = schema
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (s schemas) fields(t reflect.Type, properties object, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			s.fields(f.Type, properties, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		properties[name] = s.of(f.Type)
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}

// document is the OpenAPI description of the API, made of the route table and
// the structs that the handlers decode and encode: it cannot say anything else
// than they do.
var document = sync.OnceValue(func() api.Raw {
	s := schemas{}
	paths := map[string]object{}
	for _, route := range api.MasterRoutes {
		path := strings.ReplaceAll(route.Path, ":.*}", "}")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path][strings.ToLower(route.Method)] = s.operation(route, path)
	}
	s.ref(reflect.TypeFor[job.Spec]())
	// A request's spec is decoded apart: its schema stands for it.
	request := s["JobRequest"].(object)["properties"].(object)
	request["spec"] = object{"$ref": "#/components/schemas/Spec"}
	text, err := json.Marshal(object{
		"openapi": "3.1.0",
		"info": object{"title": "gantry master", "version": "1",
			"description": "Jobs, nodes and audit of a master. Who asks is said by the client certificate, or by the kernel on the local socket."},
		"servers":    []object{{"url": api.MasterPrefix}},
		"paths":      paths,
		"components": object{"schemas": s},
	}, json.Deterministic(true))
	if err != nil {
		panic("master: the OpenAPI document: " + err.Error()) // an invariant of this file: it is made of constants
	}
	return text
})

func (s schemas) operation(route api.Route, path string) object {
	e := exchanges[route.Name]
	op := object{
		"operationId": strings.ReplaceAll(route.Name, " ", "-") + map[bool]string{true: "-" + strings.ToLower(route.Method)}[route.Name == api.RouteSelftest],
		"summary":     e.summary, "description": rightOf(route),
	}
	if parameters := parameters(route, path, e); len(parameters) > 0 {
		op["parameters"] = parameters
	}
	if route.Media != "" {
		schema := object{"type": "string", "format": "binary"}
		if e.body != nil {
			schema = s.of(reflect.TypeOf(e.body))
		}
		op["requestBody"] = object{"required": true, "content": object{route.Media: object{"schema": schema}}}
	}
	replies := object{"default": object{"description": "The request was refused or failed",
		"content": object{api.TypeProblem: object{"schema": s.of(reflect.TypeFor[api.Problem]())}}}}
	for _, status := range slices.Sorted(maps.Keys(e.replies)) {
		reply := object{"description": http.StatusText(status)}
		schema, media := object{}, e.media
		if media == "" {
			media = api.TypeJSON
		} else {
			schema = object{"type": "string"}
		}
		if v := e.replies[status]; v != nil {
			schema = s.of(reflect.TypeOf(v))
		}
		reply["content"] = object{media: object{"schema": schema}}
		replies[strconv.Itoa(status)] = reply
	}
	op["responses"] = replies
	return op
}

func rightOf(route api.Route) string {
	switch {
	case route.Task && route.Right == api.NoRight:
		return "For the job's owner."
	case route.Task:
		return "For the job's owner, and for callers with the right " + string(route.Right) + "."
	case route.Right == api.NoRight:
		return "For every caller that is known; what it shows or does is judged apart."
	}
	return "For callers with the right " + string(route.Right) + "."
}

func parameters(route api.Route, path string, e exchange) []object {
	var list []object
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			list = append(list, object{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	for _, name := range e.query {
		schema := object{"type": "string"}
		switch name {
		case "after":
			schema = object{"type": "integer", "minimum": 0}
		case "limit":
			schema = object{"type": "integer", "minimum": 1, "maximum": api.MaxPageSize}
		case "cursor":
			schema["maxLength"] = api.MaxCursor
		}
		list = append(list, object{"name": name, "in": "query", "schema": schema})
	}
	if e.key {
		list = append(list, object{"name": api.IdempotencyHeader, "in": "header", "schema": object{"type": "string", "minLength": 1, "maxLength": api.MaxKey}})
	}
	return list
}

func (s *Server) serveOpenAPI(w http.ResponseWriter, r *http.Request) error {
	if err := onlyQuery(r); err != nil {
		return err
	}
	w.Header().Set("Content-Type", api.TypeJSON)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, err := w.Write(document())
	return err
}
