package main

import (
	"strconv"
	"strings"

	"gantry/api"
	"gantry/config"
	"gantry/job"
)

// commandOf is the command that asks for a job, with its flags, as a shell takes
// it.
func commandOf(s job.Spec) string {
	words := []string{s.String()}
	flag := func(set bool, name string, value ...string) {
		if set {
			words = append(words, "--"+name)
			for _, v := range value {
				words = append(words, quoted(v))
			}
		}
	}
	flag(s.Way != "", s.Way)
	flag(s.Mode == api.ModeReplace, "replace")
	flag(s.Mode == api.ModeUpdate, "update")
	flag(s.KeepOld, "keep-old")
	flag(s.DryRun, "dry-run")
	flag(s.Extraneous != "", "extraneous", s.Extraneous)
	flag(s.Expect != "", "expect", s.Expect)
	flag(s.Verify != "", "verify", s.Verify)
	flag(s.Checksum, "checksum")
	flag(s.TrustMTime, "trust-mtime")
	flag(s.Full, "full")
	flag(s.Bandwidth != 0, "bwlimit", config.FormatRate(s.Bandwidth))
	flag(s.Parallel != 0, "parallel", strconv.Itoa(s.Parallel))
	flag(s.Compress != "", "compress", s.Compress)
	flag(s.Resume != "", "resume", s.Resume)
	for _, rule := range s.Filter {
		flag(true, "filter", rule)
	}
	for _, arg := range s.Args {
		flag(true, "arg", arg)
	}
	for _, arg := range s.TargetArgs {
		flag(true, "target-arg", arg)
	}
	return strings.Join(words, " ")
}

// plain are the characters that a shell leaves alone.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+"

// quoted is a word as a shell takes it.
func quoted(s string) string {
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
