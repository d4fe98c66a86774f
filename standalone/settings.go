package main

import (
	"flag"
	"fmt"
	"io"
	"path/filepath"
)

// settings are what the command line says, with every path made absolute.
type settings struct {
	dataDir          string
	listen           string
	kubeconfig       string
	exitOnStdinClose bool
	verbose          bool
}

func parseSettings(args []string, usage io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("tenantry-standalone", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&s.dataDir, "data-dir", "", "`directory` that holds all state; made with mode 0700 if it is missing (required)")
	flags.StringVar(&s.listen, "listen", "127.0.0.1:7441", "`address:port` to serve on; port 0 picks a free one")
	flags.StringVar(&s.kubeconfig, "kubeconfig", "", "`file` to write the administrator's kubeconfig to (default: kubeconfig in the data directory)")
	flags.BoolVar(&s.exitOnStdinClose, "exit-on-stdin-close", false, "end cleanly when standard input reaches its end")
	flags.BoolVar(&s.verbose, "verbose", false, "also log what the Kubernetes and etcd libraries say at information level")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q: everything is given by flags, see --help", flags.Arg(0))
	}
	if s.dataDir == "" {
		return s, fmt.Errorf("--data-dir is missing: name the directory that shall hold the control plane's state")
	}
	if err := s.makeAbsolute(); err != nil {
		return s, err
	}
	return s, nil
}

func (s *settings) makeAbsolute() error {
	dir, err := filepath.Abs(s.dataDir)
	if err != nil {
		return fmt.Errorf("--data-dir %s: %w", s.dataDir, err)
	}
	s.dataDir = dir
	if s.kubeconfig == "" {
		s.kubeconfig = filepath.Join(dir, "kubeconfig")
	}
	s.kubeconfig, err = filepath.Abs(s.kubeconfig)
	if err != nil {
		return fmt.Errorf("--kubeconfig: %w", err)
	}
	return nil
}
