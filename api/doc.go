// Package api is the vocabulary between the programs: route names, request and
// reply structs, error codes and limits of the node API, version 1
// (docs/protocol.md describes it for people who write another client).
//
//	var req api.TaskRequest
//	err := api.Decode(body, &req) // strict: unknown fields, twins, trailing data refused
//
// It holds no behaviour beyond checking and decoding, and it knows neither HTTP
// handlers nor clients.
package api
