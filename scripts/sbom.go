//go:build ignore

// Sbom lists what is linked into binaries, as CycloneDX 1.5 in JSON: every
// module with the version and the checksum that the Go toolchain recorded in
// them, and the toolchain. Two runs give equal bytes.
//
//	SOURCE_DATE_EPOCH=… go run scripts/sbom.go BINARY… >sbom.cdx.json
package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

// component is a module, a binary or the standard library.
type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(binaries []string) error {
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	all := map[string]component{}
	var links []dependency
	for _, path := range binaries {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return err
		}
		link, err := binary(path, info, all)
		if err != nil {
			return err
		}
		links = append(links, link)
	}
	components := slices.SortedFunc(maps.Values(all), func(a, b component) int { return cmp.Compare(a.Ref, b.Ref) })
	body, err := json.Marshal(components)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
		"serialNumber": "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceOID, body).String(),
		"metadata":     map[string]any{"timestamp": time.Unix(epoch, 0).UTC().Format(time.RFC3339)},
		"components":   components,
		"dependencies": links,
	})
}

// binary adds a binary and its modules to all.
func binary(path string, info *debug.BuildInfo, all map[string]component) (dependency, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return dependency{}, err
	}
	sum := sha256.Sum256(data)
	self := component{
		Type: "application", Ref: "binary:" + filepath.Base(path), Name: filepath.Base(path), Version: info.Main.Version,
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
	}
	for _, s := range info.Settings {
		self.Properties = append(self.Properties, property{"go:" + s.Key, s.Value})
	}
	all[self.Ref] = self
	version := strings.TrimPrefix(info.GoVersion, "go")
	std := component{Type: "library", Ref: "pkg:golang/std@" + version, Name: "std", Version: version, PURL: "pkg:golang/std@" + version}
	all[std.Ref] = std
	link := dependency{self.Ref, []string{std.Ref}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c, err := module(m)
		if err != nil {
			return link, err
		}
		all[c.Ref] = c
		link.DependsOn = append(link.DependsOn, c.Ref)
	}
	slices.Sort(link.DependsOn)
	return link, nil
}

// module says which one it is and, as go.sum does, what it holds: h1 is the
// SHA-256 of a list of its files with theirs, not of an archive.
func module(m *debug.Module) (component, error) {
	sum, ok := strings.CutPrefix(m.Sum, "h1:")
	raw, err := base64.StdEncoding.DecodeString(sum)
	if !ok || err != nil || len(raw) != sha256.Size {
		return component{}, fmt.Errorf("%s %s has no checksum: %q", m.Path, m.Version, m.Sum)
	}
	purl := "pkg:golang/" + strings.ToLower(m.Path) + "@" + m.Version
	return component{
		Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl,
		Properties: []property{{"go:sum", m.Sum}},
	}, nil
}
