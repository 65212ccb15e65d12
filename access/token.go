package access

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"gantry/api"
	"gantry/pki"
)

// ParamToken is the parameter with which a front proves that it is the front.
const ParamToken = "GANTRY_FRONT_TOKEN"

const (
	// minToken is the least length of a token in characters: 32 of base64 or
	// hex are at least 128 random bits.
	minToken = 32
	// maxToken keeps it within one line of a front's configuration.
	maxToken = 512
	// minDistinct is how many different characters a token has at least; of
	// 32 random hex digits practically all have more. It catches "xxxx…".
	minDistinct = 8
)

// Token is the secret that a front presents. The nil Token asks for none. It
// holds a hash only.
type Token struct{ sum [sha256.Size]byte }

// LoadToken reads a token from a file that only its owner can read: one line
// of printable characters.
func LoadToken(path string) (*Token, error) {
	data, err := pki.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	token, err := newToken(bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r")))
	if err != nil {
		return nil, fmt.Errorf("%s: %w; make one: openssl rand -hex 32 > %s", path, err, path)
	}
	return token, nil
}

func newToken(text []byte) (*Token, error) {
	distinct := map[byte]bool{}
	for _, c := range text {
		// What needs quoting in a front's configuration is asking for two
		// programs that disagree on the value.
		if c <= ' ' || c > '~' || bytes.IndexByte([]byte("\"'`\\$;{}#"), c) >= 0 {
			return nil, fmt.Errorf("the token contains %q; letters, digits and -_+/=.: are safe", c)
		}
		distinct[c] = true
	}
	switch {
	case len(text) < minToken:
		return nil, fmt.Errorf("the token has %d characters, at least %d are needed", len(text), minToken)
	case len(text) > maxToken:
		return nil, fmt.Errorf("the token has %d characters, at most %d are allowed", len(text), maxToken)
	case len(distinct) < minDistinct:
		return nil, fmt.Errorf("the token has only %d different characters and is easily guessed", len(distinct))
	}
	return &Token{sum: sha256.Sum256(text)}, nil
}

// Check refuses a request whose front did not present the token. The time it
// takes says nothing about the token: hashes of equal length are compared.
func (t *Token) Check(params Getter) error {
	if t == nil {
		return nil
	}
	text, _ := params.Get(ParamToken)
	sum := sha256.Sum256([]byte(text))
	if subtle.ConstantTimeCompare(sum[:], t.sum[:]) != 1 {
		return api.BadFront.Err("the front did not present its token")
	}
	return nil
}
