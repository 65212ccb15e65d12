package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of a command's arguments.
const (
	maxArgv     = 256
	maxArgBytes = 4096 // bytes of one argument, or of one environment variable
	maxWords    = 256
	maxValue    = 64 // bytes of a name or number that a caller gives
)

// Directions of a command.
const (
	CommandExport = "export" // its output is the content
	CommandImport = "import" // the content is its input
)

// Types of a placeholder's values. The set is closed: none has room for a shell's
// characters, a path, or an option.
const (
	ArgName   = "name"   // letters, digits, '.', '_', '-', beginning with a letter or digit
	ArgNumber = "number" // digits
	ArgDate   = "date"   // a day that there is, YYYY-MM-DD
)

const spoolExample = `spool = "1GiB"`

// MinSpool and DefaultSpool bound what an export of a command keeps on disk.
const (
	MinSpool     = 64 << 20
	DefaultSpool = 1 << 30
)

// Command is a program that the administrator fixed. Nothing of it passes a
// shell.
type Command struct {
	Argv      []string       // the program's absolute path first; "{name}" is a placeholder
	Direction string         // CommandExport or CommandImport
	Env       []string       // NAME=VALUE, all that the program gets but PATH and a mark of ours
	Dir       string         // working directory
	Spool     int64          // bytes of output that wait for the reader
	Args      map[string]Arg // the placeholders
}

// Arg says which values a placeholder takes: those of a type, or of a list.
type Arg struct {
	Type  string   // ArgName, ArgNumber or ArgDate; "" where Words is set
	Words []string // the whole choice
}

// String is what an error lists as allowed.
func (a Arg) String() string {
	switch a.Type {
	case ArgName:
		return fmt.Sprintf("1 to %d of A-Z, a-z, 0-9, '.', '_', '-', beginning with a letter or digit", maxValue)
	case ArgNumber:
		return fmt.Sprintf("1 to %d digits", maxValue)
	case ArgDate:
		return "a day, YYYY-MM-DD"
	}
	return strings.Join(a.Words, ", ")
}

// takes says whether v is a value of a.
func (a Arg) takes(v string) bool {
	if len(v) == 0 || len(v) > maxArgBytes || v[0] == '-' {
		return false
	}
	all := func(set string) bool { return len(v) <= maxValue && strings.Trim(v, set) == "" }
	switch a.Type {
	case ArgName:
		return all(letters+digits+"._-") && strings.Contains(letters+digits, v[:1])
	case ArgNumber:
		return all(digits)
	case ArgDate:
		day, err := time.Parse(time.DateOnly, v)
		return err == nil && day.Format(time.DateOnly) == v
	}
	return slices.Contains(a.Words, v)
}

const (
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
)

// Expand returns the arguments of one run: values, each NAME=VALUE, in place of
// the placeholders. Each must have exactly one value that its type takes; the
// error says which has not.
func (c *Command) Expand(values []string) ([]string, error) {
	given := map[string]string{}
	for _, pair := range values {
		name, v, ok := strings.Cut(pair, "=")
		arg, known := c.Args[name]
		_, twice := given[name]
		switch {
		case !ok || !known:
			return nil, fmt.Errorf("%.80q is none of the arguments: %s", name, c.names())
		case twice:
			return nil, fmt.Errorf("%s is given twice", name)
		case strings.HasPrefix(v, "-"):
			return nil, fmt.Errorf("%s begins with '-', which a program would take for an option; allowed: %s", name, arg)
		case !arg.takes(v):
			return nil, fmt.Errorf("%s is %.80q; allowed: %s", name, v, arg)
		}
		given[name] = v
	}
	argv := slices.Clone(c.Argv)
	for i, a := range argv {
		name, ok := placeholder(a)
		if !ok {
			continue
		}
		if argv[i], ok = given[name]; !ok {
			return nil, fmt.Errorf("%s is missing; allowed: %s", name, c.Args[name])
		}
	}
	return argv, nil
}

// names lists the placeholders.
func (c *Command) names() string {
	if len(c.Args) == 0 {
		return "this command takes none"
	}
	return strings.Join(slices.Sorted(maps.Keys(c.Args)), ", ")
}

var placeholderShape = regexp.MustCompile(`^\{[a-z][a-z0-9_]{0,63}\}$`)

// placeholder says whether a whole argument is one.
func placeholder(arg string) (name string, ok bool) {
	if !placeholderShape.MatchString(arg) {
		return "", false
	}
	return arg[1 : len(arg)-1], true
}

// readCommand reads what only commands have.
func readCommand(t *table) *Command {
	const argvAllowed = "a list: the program's absolute path, then its arguments; {name} as a whole argument is a placeholder"
	const argvExample = `argv = ["/usr/bin/pg_dump", "--format=custom", "{db}"]`
	c := &Command{
		Argv:      t.arguments("argv", argvAllowed, argvExample),
		Direction: t.oneOf("direction", "", []string{CommandExport, CommandImport}, nil),
		Env:       t.texts("env", "NAME=VALUE", `env = ["PGUSER=backup"]`, checkEnv),
		Dir:       t.optionalFile("dir", `dir = "/var/lib/backup"`),
		Spool:     t.size("spool", DefaultSpool),
	}
	if c.Dir == "" {
		c.Dir = "/"
	}
	if c.Spool < MinSpool {
		t.problem("spool", "at least "+formatSize(MinSpool), spoolExample, "is %s", formatSize(c.Spool))
	}
	c.Args = readArgs(t.sub("args"))
	if len(c.Argv) == 0 {
		t.problem("argv", argvAllowed, argvExample, "names no program")
		return c
	}
	if p := c.Argv[0]; !filepath.IsAbs(p) || filepath.Clean(p) != p {
		t.problem(indexed("argv", 0), argvAllowed, argvExample, "%q is no absolute path in its shortest form", p)
	}
	c.checkPlaceholders(t, argvAllowed, argvExample)
	return c
}

// arguments takes a list of texts, in which one may stand twice or be empty.
func (t *table) arguments(key, allowed, example string) []string {
	list, _ := typed[[]any](t, key, allowed, example)
	if len(list) > maxArgv {
		t.problem(key, fmt.Sprintf("at most %d", maxArgv), example, "has %d arguments", len(list))
		return nil
	}
	var all []string
	for i, v := range list {
		s, ok := v.(string)
		switch {
		case !ok:
			t.problem(indexed(key, i), allowed, example, "is %s", kindOf(v))
		case len(s) > maxArgBytes || strings.Contains(s, "\x00") || !utf8.ValidString(s):
			t.problem(indexed(key, i), fmt.Sprintf("at most %d bytes of UTF-8 without NUL", maxArgBytes), example, "is none of these")
		}
		all = append(all, s)
	}
	return all
}

// checkPlaceholders sees to it that argv and args name the same ones.
func (c *Command) checkPlaceholders(t *table, allowed, example string) {
	used := map[string]bool{}
	for i, a := range c.Argv {
		name, ok := placeholder(a)
		if ok && i > 0 {
			used[name] = true
			if _, known := c.Args[name]; !known {
				t.problem(indexed("argv", i), allowed, name+` = "name"`, "%s has no line in [resource.args]", a)
			}
		}
		for name := range c.Args {
			if part := "{" + name + "}"; a != part && strings.Contains(a, part) {
				t.problem(indexed("argv", i), allowed, example, "%s is only a part of %q, and a placeholder is a whole argument", part, a)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Args)) {
		if !used[name] {
			t.problem("args."+name, "", "", "no argument of argv is {%s}", name)
		}
	}
}

const argAllowed = "name, number, date, or a list of words"

// readArgs reads the types of placeholders.
func readArgs(t *table) map[string]Arg {
	args := map[string]Arg{}
	for _, key := range slices.Sorted(maps.Keys(t.m)) {
		example := key + ` = "name"`
		v, _ := t.value(key)
		if _, ok := placeholder("{" + key + "}"); !ok {
			t.problem(key, "a-z, 0-9, '_', beginning with a letter", `db = "name"`, "is no placeholder's name")
			continue
		}
		switch v := v.(type) {
		case string:
			if !slices.Contains([]string{ArgName, ArgNumber, ArgDate}, v) {
				t.problem(key, argAllowed, example, "%q is unknown", v)
			}
			args[key] = Arg{Type: v}
		case []any:
			words := t.texts(key, "words", key+` = ["full", "schema"]`, checkWord)
			if len(words) == 0 || len(words) > maxWords {
				t.problem(key, fmt.Sprintf("1 to %d words", maxWords), key+` = ["full", "schema"]`, "has %d words", len(words))
			}
			args[key] = Arg{Words: words}
		default:
			t.problem(key, argAllowed, example, "is %s", kindOf(v))
		}
	}
	return args
}

// checkWord accepts anything that is no option and can be shown.
func checkWord(s string) error {
	switch {
	case s == "" || len(s) > maxArgBytes:
		return fmt.Errorf("%.80q does not have 1 to %d bytes", s, maxArgBytes)
	case s[0] == '-':
		return fmt.Errorf("%.80q begins with '-', as options do", s)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("%.80q has a control character", s)
	}
	return nil
}

var envShape = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

func checkEnv(s string) error {
	if !envShape.MatchString(s) || len(s) > maxArgBytes || strings.Contains(s, "\x00") {
		return fmt.Errorf("%.80q is not NAME=VALUE", s)
	}
	if strings.HasPrefix(s, "GANTRY_") {
		return fmt.Errorf("%.80q: names that begin with GANTRY_ are gantry's own", s)
	}
	return nil
}
