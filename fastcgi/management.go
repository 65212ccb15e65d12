package fastcgi

import "strconv"

// management answers records with request id 0, section 4.
func (c *conn) management(h header) error {
	if h.typ == typeGetValues {
		return c.getValues(h)
	}
	if err := c.in.skip(h.length); err != nil {
		return err
	}
	var b [headerLen + 8]byte // section 4.2; also for what only a responder sends
	putHeader(b[:], typeUnknownType, 0, 8, 0)
	b[headerLen] = h.typ
	return c.w.raw(b[:])
}

// getValues handles FCGI_GET_VALUES, section 4.1: it answers the names it knows,
// each once, and leaves the others out.
func (c *conn) getValues(h header) error {
	content := bigBuffer()
	defer content.free()
	content.b = content.b[:h.length]
	if err := c.in.read(content.b); err != nil {
		return err
	}
	pairs, err := decodePairs(string(content.b), h.length/2)
	if err != nil {
		return protocolError("FCGI_GET_VALUES: %v", err)
	}
	asked := make(map[string]bool)
	reply := make([]byte, headerLen, 128)
	for _, p := range pairs {
		value := 0
		switch p.name {
		case "FCGI_MAX_CONNS":
			value = c.limits.Conns
		case "FCGI_MAX_REQS":
			value = c.limits.Requests
		case "FCGI_MPXS_CONNS":
		default:
			continue
		}
		if !asked[p.name] {
			asked[p.name] = true
			reply = appendPair(reply, p.name, strconv.Itoa(value))
		}
	}
	putHeader(reply, typeGetValuesResult, 0, len(reply)-headerLen, 0)
	return c.w.raw(reply)
}
