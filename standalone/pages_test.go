package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestOnlyReadOnlyAreasOfTheNamedFilesAreFound(t *testing.T) {
	const maps = `00400000-0322f000 r-xp 00000000 fe:00 9978087                            /bin/program
0322f000-06596000 r--p 02e2f000 fe:00 9978087                            /bin/program
06596000-0668d000 rw-p 06196000 fe:00 9978087                            /bin/program
c000000000-c004000000 rw-p 00000000 00:00 0                              [anon: Go: heap]
7f0000000000-7f0000001000 r--s 00000000 fe:00 42                         /data/a folder/db
7f0000001000-7f0000002000 r--s 00000000 fe:00 43                         /data/a folder/db.old
7f0000002000-7f0000003000 r--p 00000000 00:00 0 
`
	got := readOnlyAreas(strings.NewReader(maps), map[string]bool{"/bin/program": true, "/data/a folder/db": true})
	want := []area{{0x400000, 0x2e2f000}, {0x322f000, 0x3367000}, {0x7f0000000000, 0x1000}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("found %x, not %x", got, want)
	}
	if forgotten := readOnlyAreas(strings.NewReader(maps), nil); len(forgotten) != 0 {
		t.Errorf("without names %x is found", forgotten)
	}
}

func TestAMappedFileReadsTheSameAfterItsPagesWereGivenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, []byte(strings.Repeat("content ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	mapped, err := syscall.Mmap(int(file.Fd()), 0, 8*4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	before := string(mapped)
	files := newMappedFiles(path)
	files.giveBack()
	if string(mapped) != before {
		t.Error("the content changed")
	}
	files.forget()
	if err := syscall.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	files.giveBack()
}
