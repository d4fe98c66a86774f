package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
)

// fillDisk is what etcd does when its log or its database meets a full disk.
func fillDisk() {
	full := &os.PathError{Op: "write", Path: "etcd/member/snap/db", Err: syscall.ENOSPC}
	logger := etcdLogger()
	logger.Named("bbolt").Error("writing data failed")
	logger.Fatal("failed to commit tx", zap.Error(fmt.Errorf("commit: %w", full)))
}

func TestAFullDiskEndsWithASentence(t *testing.T) {
	p := start(t, "full-disk")
	if status := p.endsWithin(t, 10*time.Second); status != 1 {
		t.Errorf("status %d", status)
	}
	want := "tenantry-standalone: The disk that holds the data directory is full, so nothing more can be stored. Free some space and start again: nothing that was acknowledged is lost.\n"
	if got := p.stderr.String(); got != want {
		t.Errorf("it said %q", got)
	}
}
