package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// opened opens a data directory, and the test goes back to where it was.
func opened(t *testing.T, path string) (*dataDir, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	dir, err := openDataDir(path)
	if err == nil {
		t.Cleanup(dir.close)
	}
	return dir, err
}

func TestTheDataDirectoryIsMadePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deeper", "data")
	if _, err := opened(t, path); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
}

func TestAnEmptyDirectoryIsTakenOverAndMadePrivate(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := opened(t, path); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
}

func TestADirectoryWithOtherFilesIsRefusedAndLeftAlone(t *testing.T) {
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := opened(t, path)
	if err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Errorf("error: %v", err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o755 {
		t.Errorf("its mode became %04o", info.Mode().Perm())
	}
}

func TestASecondProcessIsRefusedAndToldWhoIsThere(t *testing.T) {
	path := t.TempDir()
	first, err := opened(t, path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = opened(t, path)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Fatalf("error: %v", err)
	}
	first.close()
	if _, err = opened(t, path); err != nil {
		t.Errorf("the lock outlived its holder: %v", err)
	}
}

func TestALinkInPlaceOfTheLockIsNotFollowed(t *testing.T) {
	path, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(path, lockName)); err != nil {
		t.Fatal(err)
	}
	if _, err := opened(t, path); err == nil {
		t.Error("a link was taken for the lock")
	}
	if kept, _ := os.ReadFile(victim); string(kept) != "precious" {
		t.Errorf("the link's target became %q", kept)
	}
}

func TestAStartNeedsFreeSpace(t *testing.T) {
	if err := enoughSpace("/data", neededBytes); err != nil {
		t.Error(err)
	}
	err := enoughSpace("/data", neededBytes-1)
	if err == nil || !strings.Contains(err.Error(), "disk that holds /data is full: 63 MB are free and 64 MB are needed") {
		t.Errorf("error: %v", err)
	}
	if free, err := freeBytes(t.TempDir()); err != nil || free == 0 {
		t.Errorf("%d bytes free, error %v", free, err)
	}
}
