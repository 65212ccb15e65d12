package fastcgi

import "iter"

// Params are the parameters of a request as the front sent them (section 5.2),
// without HTTP_PROXY. They are read-only and may be used from any goroutine.
type Params struct {
	pairs []pair
}

type pair struct{ name, value string }

// Get returns the value of a parameter and whether it was sent. Of a parameter
// that was sent more than once it returns the last value, as CGI programs see it.
func (p *Params) Get(name string) (string, bool) {
	if p != nil {
		for i := len(p.pairs) - 1; i >= 0; i-- {
			if p.pairs[i].name == name {
				return p.pairs[i].value, true
			}
		}
	}
	return "", false
}

// All yields every parameter in the order of the request, also the repeated ones.
func (p *Params) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if p == nil {
			return
		}
		for _, q := range p.pairs {
			if !yield(q.name, q.value) {
				return
			}
		}
	}
}
