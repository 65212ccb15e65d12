package fastcgi

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Record types, section 8.
const (
	typeBeginRequest    = 1
	typeAbortRequest    = 2
	typeEndRequest      = 3
	typeParams          = 4
	typeStdin           = 5
	typeStdout          = 6
	typeStderr          = 7
	typeData            = 8
	typeGetValues       = 9
	typeGetValuesResult = 10
	typeUnknownType     = 11
)

// The rest of section 8 that a responder needs.
const (
	protocolVersion = 1
	headerLen       = 8

	roleResponder = 1
	flagKeepConn  = 1

	statusRequestComplete = 0
	statusCantMultiplex   = 1
	statusOverloaded      = 2
	statusUnknownRole     = 3
)

const (
	// maxContent is what the 16-bit contentLength can say.
	maxContent = 65535
	// alignedContent is the longest content of a multiple of eight bytes, which
	// section 3.3 recommends; long replies are cut into such records.
	alignedContent = maxContent &^ 7
)

// header is the fixed part of a record, section 3.3. The reserved byte is not
// kept: it may become something in a later version.
type header struct {
	version byte
	typ     byte
	id      uint16
	length  int
	padding int
}

func parseHeader(b []byte) header {
	_ = b[headerLen-1]
	return header{
		version: b[0],
		typ:     b[1],
		id:      binary.BigEndian.Uint16(b[2:]),
		length:  int(binary.BigEndian.Uint16(b[4:])),
		padding: int(b[6]),
	}
}

func putHeader(b []byte, typ byte, id uint16, length, padding int) {
	_ = b[headerLen-1]
	b[0], b[1] = protocolVersion, typ
	binary.BigEndian.PutUint16(b[2:], id)
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	b[6], b[7] = byte(padding), 0
}

// check refuses what no state of a connection allows. A management record of an
// unknown type passes: section 4.2 wants an answer to it.
func (h header) check() error {
	switch {
	case h.version != protocolVersion:
		return protocolError("record of version %d", h.version)
	case h.id == 0:
		if h.typ >= typeBeginRequest && h.typ <= typeData {
			return protocolError("application record of type %d with request id 0", h.typ)
		}
		return nil
	}
	switch h.typ {
	case typeBeginRequest, typeAbortRequest, typeParams, typeStdin:
		return nil
	}
	return protocolError("record of type %d with request id %d", h.typ, h.id)
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// recordReader cuts a socket into records. Long content bypasses its buffer.
type recordReader struct {
	br *bufio.Reader
}

// next reads a header. An error leaves what was read in place, so that the call
// can be repeated after a deadline. io.EOF means the end between two records.
func (r recordReader) next() (header, error) {
	b, err := r.br.Peek(headerLen)
	if err != nil {
		if err == io.EOF && len(b) > 0 {
			err = fmt.Errorf("reading a record header: %w", io.ErrUnexpectedEOF)
		}
		return header{}, err
	}
	h := parseHeader(b)
	_, _ = r.br.Discard(headerLen) // cannot fail after Peek
	return h, nil
}

// read fills b with content.
func (r recordReader) read(b []byte) error {
	_, err := io.ReadFull(r.br, b)
	return midRecord(err)
}

// skip passes over n bytes.
func (r recordReader) skip(n int) error {
	if n == 0 {
		return nil
	}
	_, err := r.br.Discard(n)
	return midRecord(err)
}

// midRecord marks an end of the socket inside a record.
func midRecord(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("reading a record: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// beginBody is the content of FCGI_BEGIN_REQUEST, section 5.1.
type beginBody struct {
	role     uint16
	keepConn bool
}

// parseBegin ignores the reserved flag bits and bytes: a later version of the
// protocol may give them a meaning, and none can make FCGI_KEEP_CONN wrong.
func parseBegin(b []byte) (beginBody, error) {
	if len(b) != 8 {
		return beginBody{}, protocolError("FCGI_BEGIN_REQUEST of %d bytes", len(b))
	}
	return beginBody{role: binary.BigEndian.Uint16(b), keepConn: b[2]&flagKeepConn != 0}, nil
}

// putEnd writes the content of FCGI_END_REQUEST, section 5.5, with its header.
func putEnd(b []byte, id uint16, appStatus uint32, protocolStatus byte) {
	putHeader(b, typeEndRequest, id, 8, 0)
	binary.BigEndian.PutUint32(b[headerLen:], appStatus)
	b[12], b[13], b[14], b[15] = protocolStatus, 0, 0, 0
}
