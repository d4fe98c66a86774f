package main

import (
	"bytes"
	"testing"
)

func TestLibrariesAreHeardWhenThereIsSomethingToHear(t *testing.T) {
	for name, c := range map[string]struct {
		line    string
		serving bool
		heard   bool
	}{
		"an error of a start":             {"E1121 10:00:00 1 x.go:1] broken\n", false, true},
		"a warning of a start":            {"W1121 10:00:00 1 x.go:1] skipping\n", false, false},
		"a warning while serving":         {"W1121 10:00:00 1 x.go:1] slow\n", true, true},
		"the error of every first start":  {"E1121 10:00:00 1 x.go:1] legacy-service-account-token-tracking\n", false, false},
		"what ends the process":           {"F1121 10:00:00 1 x.go:1] hook failed\n", true, true},
		"the stacks that klog adds to it": {"goroutine 1 [running]:\nmain.main()\n", true, false},
	} {
		var out bytes.Buffer
		log := libraryLog{out: &out}
		log.serving.Store(c.serving)
		if n, err := log.Write([]byte(c.line)); err != nil || n != len(c.line) {
			t.Errorf("%s: wrote %d, error %v", name, n, err)
		}
		if heard := out.Len() > 0; heard != c.heard {
			t.Errorf("%s: heard is %v", name, heard)
		}
	}
}
