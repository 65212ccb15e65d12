package pki

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
)

// The roles a certificate can have. A front is the only one that serves TLS;
// the others are clients.
const (
	RoleNode     = "node"
	RoleFront    = "front"
	RoleMaster   = "master"
	RoleOperator = "operator"
)

// Roles lists every role, in the order in which help texts name them.
var Roles = []string{RoleNode, RoleFront, RoleMaster, RoleOperator}

// MaxName is the longest cluster or party name in bytes. A name must fit a DNS
// label (63) in practice and a common name (64, X.520 ub-common-name) always.
const MaxName = 64

// scheme begins every id (SPIFFE ID specification, section 2).
const scheme = "spiffe://"

// ID is the party that a certificate speaks for. The zero ID is nobody.
type ID struct{ Cluster, Role, Name string }

// String is the SPIFFE id, spiffe://CLUSTER/ROLE/NAME.
func (id ID) String() string { return scheme + id.Cluster + "/" + id.Role + "/" + id.Name }

// CheckName refuses names that are no part of an id: they consist of lower
// case letters, digits, '.', '-' and '_' (the path characters of SPIFFE ids,
// section 2.2, which are case sensitive and therefore lower case here), begin
// and end with a letter or digit and have no two dots in a row, because they
// also serve as server name. what is the word for the name in the error.
func CheckName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty", what)
	case len(name) > MaxName:
		return fmt.Errorf("%s is %d bytes long, at most %d are allowed", what, len(name), MaxName)
	}
	for _, c := range []byte(name) {
		if !alphanumeric(c) && c != '.' && c != '-' && c != '_' {
			return fmt.Errorf("%s %q contains %q; allowed are a-z, 0-9, '.', '-' and '_'", what, name, c)
		}
	}
	if !alphanumeric(name[0]) || !alphanumeric(name[len(name)-1]) || strings.Contains(name, "..") {
		return fmt.Errorf("%s %q must begin and end with a letter or digit and have no \"..\"", what, name)
	}
	return nil
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// ParseURI reads a SPIFFE id. Only the exact form that ID.String prints is
// accepted: no port, no query, no escapes, no upper case.
func ParseURI(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return ID{}, fmt.Errorf("%q is not spiffe://CLUSTER/ROLE/NAME", s)
	}
	id := ID{Cluster: parts[0], Role: parts[1], Name: parts[2]}
	if err := CheckName("cluster", id.Cluster); err != nil {
		return ID{}, err
	}
	if !slices.Contains(Roles, id.Role) {
		return ID{}, fmt.Errorf("role %q is unknown; allowed are %s", id.Role, strings.Join(Roles, ", "))
	}
	if err := CheckName("name", id.Name); err != nil {
		return ID{}, err
	}
	return id, nil
}

// ParseID reads the id from a certificate's URI SANs: exactly one must be
// there. It proves nothing about the certificate; see Verifier.
func ParseID(cert *x509.Certificate) (ID, error) {
	if len(cert.URIs) != 1 {
		return ID{}, refused("%d URI names, exactly one SPIFFE id is required", len(cert.URIs))
	}
	id, err := ParseURI(cert.URIs[0].String())
	if err != nil {
		return ID{}, refused("%v", err)
	}
	return id, nil
}

// caCluster reads the cluster that a CA certificate signs for: its only URI
// SAN is spiffe://CLUSTER, as SPIFFE asks of signing certificates
// (X.509-SVID, section 4.1).
func caCluster(cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 {
		return "", refused("the CA certificate has %d URI names, exactly spiffe://CLUSTER is required", len(cert.URIs))
	}
	cluster, ok := strings.CutPrefix(cert.URIs[0].String(), scheme)
	if !ok {
		return "", refused("the CA certificate's URI %q is not spiffe://CLUSTER", cert.URIs[0])
	}
	if err := CheckName("cluster", cluster); err != nil {
		return "", refused("the CA certificate's %v", err)
	}
	return cluster, nil
}
