package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAStartThatIsCutShortEndsCleanly(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	for _, reached := range []string{etcdSocket, authenticationFile} {
		p := start(t, "serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--exit-on-stdin-close")
		eventually(t, reached+" is there", func(context.Context) (bool, error) {
			_, err := os.Stat(filepath.Join(data, reached))
			return err == nil, nil
		})
		p.stdin.Close()
		if status := p.endsWithin(t, time.Minute); status != 0 {
			t.Errorf("at %s: status %d", reached, status)
		}
		if text := p.stderr.String(); text != "" {
			t.Errorf("at %s it said: %s", reached, text)
		}
	}
}
