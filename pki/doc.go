// Package pki is a cluster's certificate authority, and the judge of the
// certificates it issued.
//
// A certificate speaks for one SPIFFE id, spiffe://CLUSTER/ROLE/NAME, in a URI
// SAN. Nothing is ever read from a subject line except to see that it agrees.
//
// The authority is a folder:
//
//	ca, err := pki.InitCA("/etc/gantry/ca", "demo", pki.Options{})
//	leaf, err := ca.Issue(pki.RoleFront, "alpha", []string{"alpha.example.org", "192.0.2.7"}, 0)
//	crl, err := ca.Revoke(leaf.Serial)
//
// A responder judges what its front forwarded, again and in full:
//
//	store, err := pki.OpenCRLStore(crlPath, id.CA)
//	v := &pki.Verifier{CA: id.CA, CRL: store}
//	who, err := v.VerifyClient(cert, time.Now()) // *pki.Error says code and rule
//
// A client reaches a node by name, whatever address it dials:
//
//	id, err := pki.LoadIdentity("ca.pem", "cert.pem", "key.pem")
//	transport.TLSClientConfig = pki.ClientTLS(id, "alpha", pins)
//
// Everything is ECDSA P-256 because browsers refuse Ed25519, and TLS 1.3.
//
// It is not a general CA: there are no intermediates, no certificate requests,
// no other key types, and rights are not its business (package access).
package pki
