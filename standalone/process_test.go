package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// asProgram makes the test's own binary be the program: no second build.
const asProgram = "TENANTRY_STANDALONE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(asProgram) {
	case "serve":
		main()
		return
	case "full-disk":
		fillDisk()
		return
	}
	os.Exit(m.Run())
}

// program is one running tenantry-standalone.
type program struct {
	*exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	stderr stderrFile
	ended  chan struct{}
	status int // once ended is closed
}

// stderrFile is the file that a program's standard error goes to. The kernel writes
// it, so it is whole as soon as the program has ended; a pipe would still have
// to be read then.
type stderrFile struct{ path string }

func (f stderrFile) String() string {
	content, err := os.ReadFile(f.path)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// start runs the program; it ends at the latest with the test.
func start(t *testing.T, mode string, args ...string) *program {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	p := &program{Cmd: exec.Command(executable, args...), stderr: stderrFile{stderr.Name()}, ended: make(chan struct{})}
	p.Env = append(os.Environ(), asProgram+"="+mode)
	p.Stderr = stderr
	p.stdin, err = p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(stdout)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		if state, err := p.Process.Wait(); err == nil {
			p.status = state.ExitCode()
		}
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("standard error of %v:\n%s", args, p.stderr)
		}
	})
	return p
}

// ready waits for the one line that says that requests are answered.
func (p *program) ready(t *testing.T) readyLine {
	t.Helper()
	text, err := p.stdout.ReadString('\n')
	if err != nil {
		<-p.ended
		t.Fatalf("no ready line: %v\n%s", err, p.stderr)
	}
	var line readyLine
	if err := json.Unmarshal([]byte(text), &line); err != nil || !line.Ready {
		t.Fatalf("%q is not a ready line: %v", text, err)
	}
	return line
}

// endsWithin waits for the end and gives the exit status.
func (p *program) endsWithin(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		t.Fatalf("still running after %s", limit)
	}
	return p.status
}

func (p *program) said(t *testing.T, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(p.stderr.String(), word) {
			t.Errorf("%q is missing in: %s", word, p.stderr)
		}
	}
	if strings.Contains(p.stderr.String(), "goroutine ") {
		t.Errorf("a stack trace: %s", p.stderr)
	}
}
