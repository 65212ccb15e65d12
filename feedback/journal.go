package feedback

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"gantry/internal/atomicfile"
	"gantry/internal/failpoint"

	"github.com/go-json-experiment/json"
)

// The file of a feed: a header line, then the stored records as they are
// shown, one per line; where records were deleted, a gap line. Appends are
// made durable before they are shown, so a last line without newline was never
// shown and is cut off when the file is opened. Anything else that is not in
// order is damage, and refused.

// journalFormat is the version of the file's format.
const journalFormat = 1

// header is the first line of a journal.
type header struct {
	Format int    `json:"format"`
	ID     string `json:"id,omitzero"`
}

// mark tells where in the file the first line after seq begins.
type mark struct{ seq, off int64 }

// contents is what a scan of a journal found.
type contents struct {
	head  header
	last  int64  // greatest number
	end   int64  // length of the complete lines, in bytes
	marks []mark // about one per Max/marksPerFile bytes
	final Record // zero: none
}

// marksPerFile sets how many marks a full journal has: 16 bytes each.
const marksPerFile = 256

// scan reads a journal from its start and checks every complete line.
func scan(r io.Reader, every int64) (c contents, err error) {
	l := lines{r: r, max: MaxJobLine}
	for n := 1; ; n++ {
		b, err := l.next()
		if err == io.EOF && n > 1 {
			return c, nil // what is left in the buffer is torn
		}
		if err == io.EOF {
			return c, errors.New("line 1: it has no header")
		}
		if err != nil {
			return c, fmt.Errorf("line %d: %w", n, err)
		}
		if n == 1 {
			err = c.header(b)
		} else {
			err = c.record(b, every)
		}
		if err != nil {
			return c, fmt.Errorf("line %d: %w", n, err)
		}
		c.end += int64(len(b)) + 1
	}
}

func (c *contents) header(b []byte) error {
	if err := json.Unmarshal(b, &c.head); err != nil {
		return fmt.Errorf("it has no header: %w", err)
	}
	if c.head.Format > journalFormat {
		return fmt.Errorf("it has format %d, newer than this program, which reads %d", c.head.Format, journalFormat)
	}
	if c.head.Format < 1 {
		return errors.New("it has no header")
	}
	return nil
}

func (c *contents) record(b []byte, every int64) error {
	rec, err := Decode(b)
	if err != nil {
		return err
	}
	if c.final.Seq != 0 {
		return errors.New("something after the final record")
	}
	if len(c.marks) == 0 || c.end-c.marks[len(c.marks)-1].off >= every {
		c.marks = append(c.marks, mark{c.last, c.end})
	}
	g, gap := rec.Body.(*Gap)
	switch {
	case gap && g.From == c.last+1:
		c.last = g.To
	case !gap && rec.Seq == c.last+1:
		c.last = rec.Seq
	default:
		return fmt.Errorf("expected record %d", c.last+1)
	}
	if rec.Kind.Final() {
		rec.Line = bytes.Clone(rec.Line)
		c.final = rec
	}
	return nil
}

// load opens the journal at path, cuts a torn last line off, makes sure that
// what is left is on disk, and returns what is in it.
func load(path string, every int64) (contents, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return contents{}, err
	}
	defer f.Close()
	c, err := scan(f, every)
	if err != nil {
		return c, fmt.Errorf("%s is damaged: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	if info.Size() > c.end {
		if err := failpoint.Hit("feedback.open.cut"); err != nil {
			return c, err
		}
		if err := f.Truncate(c.end); err != nil {
			return c, fmt.Errorf("cutting a torn line off: %w", err)
		}
	}
	// A process that was killed leaves lines that are complete and perhaps not
	// on disk: they were never shown, and are about to be.
	return c, atomicfile.Datasync(f, "feedback.open.sync")
}

// createJournal writes an empty journal; it must not exist.
func createJournal(path string, h header) (int64, error) {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		if err == nil {
			err = os.ErrExist
		}
		return 0, err
	}
	b, err := json.Marshal(&h)
	if err != nil {
		return 0, err
	}
	b = append(b, '\n')
	return int64(len(b)), atomicfile.WriteFile(path, b, journalPerm, "feedback.create")
}

// journalPerm: what tasks do is their caller's business only.
const journalPerm = 0o600

// lineSeq returns the number of a line of a journal, or, for a gap line, its
// range. It reads the prefix that Encode writes, and parses where that fails.
func lineSeq(b []byte) (from, to int64, err error) {
	const prefix = `{"seq":`
	if bytes.HasPrefix(b, []byte(prefix)) {
		var n int64
		rest := b[len(prefix):]
		for i, c := range rest {
			if c == ',' && i > 0 {
				return n, n, nil
			}
			if c < '0' || c > '9' || i > 16 {
				break
			}
			n = n*10 + int64(c-'0')
		}
	}
	rec, err := Decode(b)
	if err != nil {
		return 0, 0, err
	}
	if g, ok := rec.Body.(*Gap); ok {
		return g.From, g.To, nil
	}
	return rec.Seq, rec.Seq, nil
}
