package transfer

import (
	"bufio"
	"encoding/base64"
	"io"

	"gantry/api"
)

// readSub reads the reply to Sub(pieces) of a file of size bytes and hands the
// values of each piece's parts to emit, which proves them. One that ended
// without its last line is io.ErrUnexpectedEOF, one that breaks the protocol has
// the code bad_manifest.
func readSub(r io.Reader, pieces []int64, size int64, emit func(n int64, values []Value) error) error {
	lr := &lineReader{br: bufio.NewReaderSize(r, maxLine)}
	file, err := lr.file()
	if err != nil {
		return err
	}
	if file.Size != size {
		return fail(api.SourceChanged, nil, "the source has now %d bytes instead of %d", file.Size, size)
	}
	for _, n := range pieces {
		l, err := lr.next()
		if err != nil {
			return err
		}
		values, err := l.parts(n, size)
		if err != nil {
			return err
		}
		if err := emit(n, values); err != nil {
			return err
		}
	}
	l, err := lr.next()
	switch next := pieces[len(pieces)-1] + 1; {
	case err != nil:
		return err
	case l.Kind == kindError:
		return l.wire()
	case l.Kind != kindWindow || *l.Next != next:
		return badManifest("the parts of %d pieces do not end with window %d", len(pieces), next)
	}
	return lr.end()
}

// parts reads a line of kind parts for piece n.
func (l *line) parts(n, size int64) ([]Value, error) {
	switch {
	case l.Kind == kindError:
		return nil, l.wire()
	case l.Kind != kindParts || *l.N != n:
		return nil, badManifest("a line of kind %q where the parts of piece %d are due", l.Kind, n)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(*l.Values)
	count := parts(PieceLen(n, size))
	if err != nil || int64(len(raw)) != count*int64(len(Value{})) {
		return nil, badManifest("piece %d has not the values of %d parts", n, count)
	}
	values := make([]Value, count)
	for i := range values {
		copy(values[i][:], raw[i*len(Value{}):])
	}
	return values, nil
}
