package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gantry/config"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand writes the manual, for packages: a page for each command, and
// one for each configuration file. With SOURCE_DATE_EPOCH (seconds since 1970)
// in the environment two runs give equal bytes.
func newManCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "__man DIR", Short: "Write the manual pages into a folder", Hidden: true, Args: wantArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			date := e.Now()
			if s := e.Getenv("SOURCE_DATE_EPOCH"); s != "" {
				seconds, err := strconv.ParseInt(s, 10, 64)
				if err != nil {
					return misused(cmd, "SOURCE_DATE_EPOCH=%s is no number of seconds", s)
				}
				date = time.Unix(seconds, 0)
			}
			return writeManual(cmd.Root(), args[0], date.UTC())
		},
	}
}

func writeManual(root *cobra.Command, dir string, date time.Time) error {
	root.DisableAutoGenTag = true // it would name the day of the build
	root.InitDefaultCompletionCmd()
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: "gantry", Manual: "gantry"}, dir); err != nil {
		return fmt.Errorf("writing the manual: %w", err)
	}
	for _, page := range []struct{ name, about, example string }{
		{"node.toml", "configuration of a gantry node", config.ExampleNode()},
		{"master.toml", "configuration of a gantry master", config.ExampleMaster()},
		{"cluster.toml", "the nodes and masters of a gantry cluster", config.ExampleCluster()},
	} {
		if err := os.WriteFile(filepath.Join(dir, page.name+".5"), []byte(filePage(page.name, page.about, page.example, date)), 0o644); err != nil {
			return fmt.Errorf("writing the manual: %w", err)
		}
	}
	return nil
}

// filePage is the page of a configuration file: the annotated example is the
// description of every key, and the only one, so that it cannot differ.
func filePage(name, about, example string, date time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %q 5 %q gantry gantry\n.nh\n.ad l\n", strings.ToUpper(name), date.Format("Jan 2006"))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n.SH DESCRIPTION\nEach key stands below what is to be said about it.\n.PP\n.nf\n", name, about)
	for line := range strings.Lines(example) {
		b.WriteString(roff(line))
	}
	b.WriteString(".fi\n.SH SEE ALSO\n.BR gantry (1),\n.BR fcgi-app (8),\n.BR masterd (8)\n")
	return b.String()
}

// roff takes from a line of text what troff would read as a request.
func roff(line string) string {
	line = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(line)
	if strings.HasPrefix(line, ".") {
		return `\&` + line
	}
	return line
}
