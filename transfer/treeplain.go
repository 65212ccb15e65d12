package transfer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Nearly all lines of a tree's manifest are entries with nothing in them that JSON escapes. They are
// written and read here, without reflection: the same bytes as json.Marshal's, and the
// same line as json.Unmarshal's. Every other line, and every line that is not
// written just so, is left to these.

// appendPlain appends the line, or says that it is not plain.
func (l *treeLine) appendPlain(b []byte) ([]byte, bool) {
	if l.Kind != TreeKindEntry || l.N == nil || l.Path == nil || l.Type == nil || l.Xattrs != nil || l.Rdev != nil ||
		!isPlain(*l.Path) || l.Target != nil && !isPlain(*l.Target) {
		return b, false
	}
	b = strconv.AppendInt(append(b, `{"kind":"entry","n":`...), *l.N, 10)
	b = append(append(append(b, `,"path":"`...), *l.Path...), `","type":"`...)
	b = append(append(b, *l.Type...), '"')
	if l.Mode != nil {
		b = strconv.AppendUint(append(b, `,"mode":`...), uint64(*l.Mode), 10)
		b = append(append(append(b, `,"mtime":"`...), *l.MTime...), '"')
		b = strconv.AppendUint(append(b, `,"uid":`...), uint64(*l.UID), 10)
		b = strconv.AppendUint(append(b, `,"gid":`...), uint64(*l.GID), 10)
	}
	if l.Size != nil {
		b = strconv.AppendInt(append(b, `,"size":`...), *l.Size, 10)
		b = strconv.AppendInt(append(b, `,"at":`...), *l.At, 10)
	}
	if l.Digest != nil {
		b = append(append(append(b, `,"digest":"`...), *l.Digest...), '"')
	}
	if l.Target != nil {
		b = append(append(append(b, `,"target":"`...), *l.Target...), '"')
	}
	return append(b, "}\n"...), true
}

// isPlain says that s is in JSON what it is here.
func isPlain(s string) bool {
	wide := false
	for i := range len(s) {
		switch c := s[i]; {
		case c < 0x20 || c == '"' || c == '\\':
			return false
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
	return !wide || utf8.ValidString(s)
}

// A plainLine is a treeLine and what it points to.
type plainLine struct {
	treeLine
	n, size, at    int64
	mode, uid, gid uint32
	typ            TreeType
	path, mtime    string
	digest, target string
}

// parsePlain reads a line that appendPlain wrote; nil is any other.
func parsePlain(raw []byte) *treeLine {
	p := plain{rest: string(raw)}
	if !p.has(`{"kind":"entry","n":`) {
		return nil
	}
	l := &plainLine{n: int64(p.number(63))}
	l.Kind, l.N, l.Path, l.Type = TreeKindEntry, &l.n, &l.path, &l.typ
	p.want(`,"path":"`)
	l.path = strings.Clone(p.text()) // it may be kept for long, the rest of the line is not
	p.want(`,"type":"`)
	l.typ = TreeType(p.text())
	if p.has(`,"mode":`) {
		l.mode = uint32(p.number(32))
		p.want(`,"mtime":"`)
		l.mtime = p.text()
		p.want(`,"uid":`)
		l.uid = uint32(p.number(32))
		p.want(`,"gid":`)
		l.gid = uint32(p.number(32))
		l.Mode, l.MTime, l.UID, l.GID = &l.mode, &l.mtime, &l.uid, &l.gid
	}
	if p.has(`,"size":`) {
		l.size = int64(p.number(63))
		p.want(`,"at":`)
		l.at = int64(p.number(63))
		l.Size, l.At = &l.size, &l.at
	}
	if p.has(`,"digest":"`) {
		l.digest = p.text()
		l.Digest = &l.digest
	}
	if p.has(`,"target":"`) {
		l.target = strings.Clone(p.text())
		l.Target = &l.target
	}
	p.want("}\n")
	if p.bad || p.rest != "" {
		return nil
	}
	return &l.treeLine
}

// plain takes a line apart from its start.
type plain struct {
	rest string
	bad  bool
}

// has takes what is next if it is s.
func (p *plain) has(s string) bool {
	rest, ok := strings.CutPrefix(p.rest, s)
	p.rest = rest
	return ok
}

func (p *plain) want(s string) { p.bad = !p.has(s) || p.bad }

// number takes an integer of at most so many bits, as JSON writes it.
func (p *plain) number(bits int) uint64 {
	k := 0
	for k < len(p.rest) && p.rest[k] >= '0' && p.rest[k] <= '9' {
		k++
	}
	n, err := strconv.ParseUint(p.rest[:k], 10, bits)
	p.bad = p.bad || err != nil || k > 1 && p.rest[0] == '0'
	p.rest = p.rest[k:]
	return n
}

// text takes a string up to its quote.
func (p *plain) text() string {
	s, rest, ok := strings.Cut(p.rest, `"`)
	p.rest = rest
	p.bad = p.bad || !ok || !isPlain(s)
	return s
}
