package config

import (
	"fmt"
	"io"
	"os"
	"syscall"

	_ "embed"
)

//go:embed testdata/node.toml
var exampleNode string

//go:embed testdata/cluster.toml
var exampleCluster string

//go:embed testdata/master.toml
var exampleMaster string

// ExampleMaster is a complete master.toml, every key with its explanation.
func ExampleMaster() string { return exampleMaster }

// ExampleNode is a complete node.toml, every key with its explanation.
func ExampleNode() string { return exampleNode }

// ExampleCluster is a complete cluster.toml, every key with its explanation.
func ExampleCluster() string { return exampleCluster }

// LoadNode reads and checks a node's configuration. An error about the content
// is an Errors with every problem.
func LoadNode(path string) (*Node, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return ParseNode(path, data)
}

// LoadMaster reads and checks a master's configuration; errors as LoadNode.
func LoadMaster(path string) (*Master, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return ParseMaster(path, data)
}

// LoadCluster reads and checks a cluster's list of nodes; errors as LoadNode.
func LoadCluster(path string) (*Cluster, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return ParseCluster(path, data)
}

// read returns at most one byte more than MaxFile, for the parser to refuse.
func read(path string) ([]byte, error) {
	// O_NONBLOCK: a FIFO must not keep the start waiting.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading configuration: %s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	return data, nil
}
