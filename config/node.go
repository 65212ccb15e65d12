package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ParseNode checks the text of a node's configuration. file is the name that
// errors say.
func ParseNode(file string, data []byte) (*Node, error) {
	d, err := parse(file, data)
	if err != nil {
		return nil, err
	}
	t := d.table()
	n := &Node{doc: d}
	n.Name = t.name("name", `name = "alpha"`)
	n.Socket = t.socket("socket", `socket = "/run/gantry/node.sock"`)
	n.From = t.oneOf("socket_from", SocketOwn, []string{SocketOwn, SocketFD0, SocketSystemd}, nil)
	n.Dir = t.dir("dir", `dir = "/var/lib/gantry"`)
	n.Cluster = t.optionalFile("cluster", `cluster = "/etc/gantry/cluster.toml"`)
	n.Identity = readIdentity(t.sub("identity"))
	n.Front = readFront(t.sub("front"))
	t.each("resource", func(r *table) { n.Resources = append(n.Resources, readResource(r)) })
	t.each("grant", func(g *table) { n.Grants = append(n.Grants, readGrant(g)) })
	t.each("peer", func(p *table) { n.Peers = append(n.Peers, readPeer(p)) })
	n.Limits = readLimits(t.sub("limits"))
	t.finish()
	n.checkNames(t)
	n.checkRoots(t)
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	return n, nil
}

func readIdentity(t *table) Identity {
	id := Identity{
		CA:   t.file("ca", `ca = "/etc/gantry/ca.pem"`),
		Cert: t.file("cert", `cert = "/etc/gantry/cert.pem"`),
		Key:  t.file("key", `key = "/etc/gantry/key.pem"`),
		CRL:  t.file("crl", `crl = "/var/lib/gantry/crl.pem"`),
	}
	t.finish()
	return id
}

func readFront(t *table) Front {
	f := Front{
		Kind:        t.oneOf("kind", "", []string{FrontLighttpd, FrontNginx, FrontEmbedded}, nil),
		UIDs:        t.uids("uids"),
		TokenFile:   t.optionalFile("token_file", `token_file = "/etc/gantry/front.token"`),
		APIListen:   t.texts("api_listen", "HOST:PORT", `api_listen = ["[::]:8443"]`, checkListen),
		DataListen:  t.texts("data_listen", "HOST:PORT", `data_listen = ["192.0.2.7:8444"]`, checkListen),
		Padding:     t.count("padding", 0, 0, MaxPadding),
		Incremental: t.bool("incremental"),
	}
	t.finish()
	return f
}

func readResource(t *table) Resource {
	r := Resource{
		Name:   t.name("name", `name = "disks"`),
		Kind:   t.oneOf("kind", "", []string{KindFiles, KindTree, KindDevice, KindCommand}, nil),
		Mode:   DefaultMode,
		Send:   SendStream,
		Direct: DirectAuto,
	}
	switch r.Kind {
	case KindCommand:
		r.Command = readCommand(t)
		r.Writable = r.Command.Direction == CommandImport
	case KindDevice:
		r.Path = t.dir("path", `path = "/dev/vg0/vm1"`)
		r.Live = t.bool("live")
		r.Writable = t.bool("writable")
		r.Freeze = readFreeze(t, r.Kind)
	default:
		readFiles(t, &r)
	}
	t.finish()
	return r
}

// readFiles reads what only directories have.
func readFiles(t *table, r *Resource) {
	r.Path = t.dir("path", `path = "/srv/disks"`)
	r.Mode = os.FileMode(t.octal("mode", uint32(DefaultMode)))
	r.Send = t.oneOf("send", SendStream, []string{SendStream, SendFront}, nil)
	r.Direct = t.oneOf("direct", DirectAuto, []string{DirectAuto, DirectOff}, nil)
	r.Writable = t.bool("writable")
	r.Freeze = readFreeze(t, r.Kind)
	r.Tree = readTree(t, r)
}

func readPeer(t *table) Peer {
	p := Peer{Name: t.name("name", `name = "beta"`), Bandwidth: t.rate("bandwidth")}
	if _, ok := t.m["bandwidth"]; !ok {
		t.problem("bandwidth", RateAllowed, `bandwidth = "50M"`, "is missing")
	}
	t.finish()
	return p
}

func readGrant(t *table) Grant {
	who, ok := t.text("who", whoAllowed, whoExample)
	if ok {
		if err := checkWho(who); err != nil {
			t.problem("who", whoAllowed, whoExample, "%v", err)
		}
	}
	g := Grant{Who: who}
	const example = `may = ["export", "digest"]`
	allowed := strings.Join(Rights, ", ")
	g.May = t.texts("may", allowed, example, checkRight)
	if list, ok := t.m["may"].([]any); ok && len(list) == 0 || t.m["may"] == nil {
		t.problem("may", allowed, example, "names no right")
	}
	g.Resources = t.texts("resources", `names of [[resource]], or "*" alone for all`, `resources = ["disks"]`, nil)
	t.reserve("user", "tasks run as the responder's user until workers exist")
	t.finish("user")
	return g
}

func readLimits(t *table) Limits {
	d := Defaults()
	l := Limits{
		Tasks:          t.count("tasks", d.Tasks, 1, maxCount),
		Connections:    t.count("connections", d.Connections, 1, maxCount),
		JournalPerTask: t.size("journal_per_task", d.JournalPerTask),
		JournalPerNode: t.size("journal_per_node", d.JournalPerNode),
		RunFor:         t.duration("run_for", d.RunFor, maxDuration),
		StallAfter:     t.duration("stall_after", d.StallAfter, maxDuration),
		KeepFinal:      t.duration("keep_final", d.KeepFinal, maxDuration),
		Heartbeat:      t.duration("heartbeat", d.Heartbeat, MaxHeartbeat),
		RetryFor:       t.duration("retry_for", d.RetryFor, maxDuration),
		Drain:          t.duration("drain", d.Drain, maxDuration),
		Bandwidth:      t.rate("bandwidth"),
		IOPriority:     t.oneOf("io_priority", d.IOPriority, []string{IOIdle, IOBestEffort, IONormal}, nil),
	}
	if l.JournalPerTask > l.JournalPerNode {
		t.problem("journal_per_task", "at most journal_per_node", "", "%s is more than journal_per_node, %s",
			formatSize(l.JournalPerTask), formatSize(l.JournalPerNode))
	}
	t.finish()
	return l
}

// checkNames sees to it that resource names are unique and that grants name
// resources that exist.
func (n *Node) checkNames(t *table) {
	var names []string
	for i, r := range n.Resources {
		if r.Name != "" && slices.Contains(names, r.Name) {
			t.at("resource", i).problem("name", "each name once", "", "%q is the name of another resource", r.Name)
		}
		names = append(names, r.Name)
	}
	var peers []string
	for i, p := range n.Peers {
		if p.Name != "" && slices.Contains(peers, p.Name) {
			t.at("peer", i).problem("name", "each name once", "", "%q is the name of another peer", p.Name)
		}
		peers = append(peers, p.Name)
	}
	for i, g := range n.Grants {
		t := t.at("grant", i)
		for _, r := range g.Resources {
			switch {
			case r == "*" && len(g.Resources) > 1:
				t.problem("resources", `"*" alone, or names`, `resources = ["*"]`, `"*" stands beside names`)
			case r != "*" && !slices.Contains(names, r):
				t.problem("resources", strings.Join(append(names, "*"), ", "), "", "%q is no [[resource]]", r)
			}
		}
		if needs := slices.IndexFunc(g.May, NeedsResource); needs >= 0 && len(g.Resources) == 0 {
			t.problem("resources", strings.Join(append(names, "*"), ", "), `resources = ["*"]`,
				"is missing, and the right %q is about a resource", g.May[needs])
		}
	}
}

// checkRoots refuses resources that contain each other, because a grant on one
// would reach into the other, and resources that contain what must not be
// exported or overwritten: the node's own state and keys.
func (n *Node) checkRoots(t *table) {
	own := []struct{ key, path string }{
		{"dir", n.Dir}, {"socket", n.Socket}, {"cluster", n.Cluster},
		{"identity.ca", n.Identity.CA}, {"identity.cert", n.Identity.Cert}, {"identity.key", n.Identity.Key},
		{"identity.crl", n.Identity.CRL}, {"front.token_file", n.Front.TokenFile},
	}
	for i, r := range n.Resources {
		if r.Path == "/" || !filepath.IsAbs(r.Path) || filepath.Clean(r.Path) != r.Path {
			continue // has been said
		}
		t := t.at("resource", i)
		for _, other := range n.Resources[:i] {
			if within(r.Path, other.Path) || within(other.Path, r.Path) {
				t.problem("path", "directories outside of each other", "", "%s overlaps with resource %q, %s", r.Path, other.Name, other.Path)
			}
		}
		for _, o := range own {
			if within(o.path, r.Path) || o.key == "dir" && within(r.Path, o.path) {
				t.problem("path", "a directory without the node's own files", "", "%s overlaps with %s, %s", r.Path, o.key, o.path)
				break
			}
		}
	}
}

// within says whether path is root or below it, by names and, as far as they
// exist, with symbolic links followed.
func within(path, root string) bool {
	if path == "" || root == "" {
		return false
	}
	return below(path, root) || below(resolve(path), resolve(root))
}

func below(path, root string) bool {
	return path == root || strings.HasPrefix(path, strings.TrimSuffix(root, "/")+"/")
}

func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	// What does not exist yet lies in a folder that may.
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(resolve(dir), filepath.Base(path))
	}
	return path
}

// at is the i-th table of a list, to report problems in.
func (t *table) at(key string, i int) *table {
	return &table{doc: t.doc, path: join(t.path, indexed(key, i))}
}
