package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
)

func TestPathsAreMadeAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	s, err := parseSettings([]string{"--data-dir", "data", "--kubeconfig", "there/kubeconfig"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.dataDir, s.kubeconfig} {
		if !filepath.IsAbs(path) {
			t.Errorf("%s is relative, and the working directory will change", path)
		}
	}
	if s.listen != "127.0.0.1:7441" {
		t.Errorf("listens on %s", s.listen)
	}
}

func TestTheKubeconfigIsInTheDataDirectory(t *testing.T) {
	s, err := parseSettings([]string{"--data-dir=/data"}, io.Discard)
	if err != nil || s.kubeconfig != "/data/kubeconfig" {
		t.Errorf("%s, %v", s.kubeconfig, err)
	}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	for line, want := range map[string]string{"": "--data-dir", "--data-dir=/data serve": "serve", "--data-dir=/data --port=1": "port"} {
		if _, err := parseSettings(strings.Fields(line), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", line, err)
		}
	}
}
