package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// lockName is the first file in a data directory: it marks the directory as
	// ours, and its lock keeps a second process out.
	lockName = "tenantry-standalone.lock"
	// neededBytes must be free at the start: the store's log is preallocated in
	// two segments of walSegmentBytes, and its database needs room to grow.
	neededBytes = 64 << 20
	spaceEvery  = 30 * time.Second
)

// dataDir is the locked directory that holds all state. It is also the working
// directory: the path of the store's socket stays short however deep the
// directory lies (a socket's path may have 107 bytes).
type dataDir struct {
	path string
	lock *os.File
}

func openDataDir(path string) (*dataDir, error) {
	syscall.Umask(0o077)
	if err := prepareDir(path); err != nil {
		return nil, err
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chdir(path); err != nil {
		lock.Close()
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return &dataDir{path: path, lock: lock}, nil
}

// prepareDir makes the directory, or checks that it is ours to use. A foreign
// directory that holds files is refused: its mode is not ours to change.
func prepareDir(path string) error {
	err := os.MkdirAll(path, 0o700)
	if err != nil {
		return fmt.Errorf("cannot make the data directory: %w", explainFull(path, err))
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("data directory %s belongs to user %d, not to user %d who runs this: choose another --data-dir", path, owner.Uid, os.Geteuid())
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(path, lockName)); err != nil && len(entries) > 0 {
		return fmt.Errorf("data directory %s holds files that are not the control plane's (%s): choose an empty or a new --data-dir", path, entries[0].Name())
	}
	if info.Mode().Perm() == 0o700 {
		return nil
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if len(entries) > 0 {
		complain("The data directory %s had mode %04o, so that other users could enter it; it is 0700 again.", path, info.Mode().Perm())
	}
	return nil
}

func lockDir(path string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", explainFull(path, err))
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		defer lock.Close()
		return nil, fmt.Errorf("%s is already in use by another tenantry-standalone%s: end that one, or choose another --data-dir", path, holder(lock))
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("data directory: cannot lock %s: %w", lock.Name(), err)
	}
	// Only a help for the message above: a failure is not worth ending for.
	if lock.Truncate(0) == nil {
		_, _ = lock.WriteAt([]byte(fmt.Sprintf("%d\n", os.Getpid())), 0)
	}
	return lock, nil
}

func holder(lock *os.File) string {
	text := make([]byte, 32)
	n, _ := lock.ReadAt(text, 0)
	if pid := strings.TrimSpace(string(text[:n])); pid != "" {
		return " (process " + pid + ")"
	}
	return ""
}

func (d *dataDir) close() { d.lock.Close() }

// checkSpace refuses to start where the store would fail soon.
func (d *dataDir) checkSpace() error {
	free, err := freeBytes(d.path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return enoughSpace(d.path, free)
}

func enoughSpace(path string, free uint64) error {
	if free < neededBytes {
		return fmt.Errorf("the disk that holds %s is full: %d MB are free and %d MB are needed. Free some space and start again", path, free>>20, neededBytes>>20)
	}
	return nil
}

// watchSpace says once that the disk is getting full, and again after it was not.
func (d *dataDir) watchSpace(ctx context.Context) {
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	for said := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		free, err := freeBytes(d.path)
		low := err == nil && free < neededBytes
		if low && !said {
			complain("The disk that holds %s is nearly full: %d MB are free. When it is full the control plane ends", d.path, free>>20)
		}
		said = low
	}
}

func freeBytes(path string) (uint64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// explainFull names a full disk as what it is.
func explainFull(path string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk that holds %s is full. Free some space and start again", path)
	}
	return err
}
