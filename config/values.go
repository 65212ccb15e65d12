package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	whoAllowed  = "spiffe://CLUSTER/ROLE/NAME with role node, master or operator; NAME may be *"
	whoExample  = `who = "spiffe://demo/master/*"`
	nameAllowed = "1 to 64 of a-z, 0-9, '.', '-', '_', beginning and ending with a letter or digit"
	pathAllowed = "an absolute path without \"..\""
)

// nameShape is the set of names that certificates carry; package pki decides,
// a test of package access sees that both agree.
var nameShape = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)

func validName(s string) bool {
	return len(s) <= MaxName && nameShape.MatchString(s) && !strings.Contains(s, "..")
}

func indexed(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }

func (t *table) name(key, example string) string {
	s, ok := t.text(key, nameAllowed, example)
	if ok && !validName(s) {
		t.problem(key, nameAllowed, example, "%q is no name", s)
	}
	return s
}

// file takes the path of a file. Relative ones would depend on who started the
// program from where.
func (t *table) file(key, example string) string {
	s, ok := t.text(key, pathAllowed, example)
	if ok {
		t.checkPath(key, s, example)
	}
	return s
}

func (t *table) optionalFile(key, example string) string {
	s := t.optional(key, "", pathAllowed, example)
	if s != "" {
		t.checkPath(key, s, example)
	}
	return s
}

// dir takes the path of a directory, which must not be the root.
func (t *table) dir(key, example string) string {
	s := t.file(key, example)
	if s == "/" {
		t.problem(key, "a directory below /", example, "is the root of the file system")
	}
	return s
}

func (t *table) checkPath(key, s, example string) {
	switch {
	case !strings.HasPrefix(s, "/"):
		t.problem(key, pathAllowed, example, "%q is relative", s)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		t.problem(key, pathAllowed, example, "%q contains a control character", s)
	case filepath.Clean(s) != s:
		t.problem(key, pathAllowed, example, "%q is not in its shortest form, %q", s, filepath.Clean(s))
	}
}

// socket takes the path of a unix socket.
func (t *table) socket(key, example string) string {
	s, ok := t.text(key, pathAllowed, example)
	switch {
	case !ok:
	case s == SocketSystemd || strings.HasPrefix(s, "fd:"):
		t.problem(key, pathAllowed, example, "%q is no path; say socket_from = %q beside the socket's path, which the front and the probe need", s, s)
	case len(s) > MaxSocketPath:
		t.problem(key, fmt.Sprintf("at most %d bytes, as unix(7) has room for", MaxSocketPath), example, "is %d bytes long", len(s))
	default:
		t.checkPath(key, s, example)
	}
	return s
}

// uids takes the numeric users who may speak to the socket.
func (t *table) uids(key string) []uint32 {
	const allowed = "numbers of users, at least one, never 65534"
	const example = "uids = [58261]"
	list, ok := typed[[]any](t, key, allowed, example)
	if _, there := t.m[key]; !there || ok && len(list) == 0 {
		t.problem(key, allowed, example, "names nobody who may speak to the socket")
	}
	var uids []uint32
	for i, v := range list {
		n, ok := v.(int64)
		switch {
		case !ok:
			t.problem(indexed(key, i), allowed, example, "is %s", kindOf(v))
		case n == overflowUID:
			t.problem(indexed(key, i), allowed, example, "65534 is nobody in particular: every user that this system cannot name has it")
		case n < 0 || n >= 1<<32-1:
			t.problem(indexed(key, i), allowed, example, "%d is no uid", n)
		case slices.Contains(uids, uint32(n)):
			t.problem(indexed(key, i), "each once", "", "%d stands there twice", n)
		default:
			uids = append(uids, uint32(n))
		}
	}
	return uids
}

func checkListen(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT (an IPv6 address in brackets)", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no port from 1 to 65535", s)
	}
	if strings.ContainsFunc(host, func(r rune) bool {
		return r > 0x7e || r <= ' ' || strings.ContainsRune(`"'\/;{}$#`, r)
	}) {
		return fmt.Errorf("%q has no host or address", s)
	}
	return nil
}

// checkWho accepts a SPIFFE id of a client, with * for all names of a role.
func checkWho(s string) error {
	rest, ok := strings.CutPrefix(s, "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return fmt.Errorf("%q is not of that form", s)
	}
	if strings.Contains(parts[0]+parts[1], "*") || strings.Contains(parts[2], "*") && parts[2] != "*" {
		return fmt.Errorf("%q: * may only be the whole last element", s)
	}
	if parts[1] == "front" {
		return fmt.Errorf("%q: a front is never a caller", s)
	}
	if !validName(parts[0]) || !slices.Contains([]string{"node", "master", "operator"}, parts[1]) || parts[2] != "*" && !validName(parts[2]) {
		return fmt.Errorf("%q is not of that form", s)
	}
	return nil
}

func checkRight(s string) error { return checkRightOf(s, Rights) }

func checkRightOf(s string, rights []string) error {
	if slices.Contains(rights, s) {
		return nil
	}
	if near := Nearest(s, rights); near != "" {
		return fmt.Errorf("%q is no right, did you mean %s?", s, near)
	}
	return fmt.Errorf("%q is no right", s)
}

// checkURL accepts where a node is reached: no path, no password, TLS only.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("is not a URL")
	}
	switch {
	case u.Scheme != "https":
		return fmt.Errorf("%q does not begin with https://", s)
	case u.Hostname() == "":
		return fmt.Errorf("%q has no host", s)
	case u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return fmt.Errorf("%q has more than host and port", s)
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q has no port from 1 to 65535", s)
		}
	}
	return nil
}

var pinShape = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func checkPin(s string) error {
	if !pinShape.MatchString(s) {
		return fmt.Errorf("%q is no pin", s)
	}
	return nil
}
