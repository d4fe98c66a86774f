package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/grpclog"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// complain writes one sentence of ours to standard error.
func complain(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	first, size := utf8.DecodeRuneInString(text)
	if !strings.HasPrefix(text, "--") {
		text = string(unicode.ToUpper(first)) + text[size:]
	}
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	fmt.Fprintln(os.Stderr, "tenantry-standalone: "+text)
}

// libraryLog lets through what the Kubernetes libraries say that somebody may
// want to know: errors while the server starts, warnings too when it serves.
// The warnings of a start are the same every time and ask for nothing.
type libraryLog struct {
	out     io.Writer
	serving atomic.Bool
}

// harmless is an error that every first start logs once: a controller that is
// faster than the namespace it writes to tries again.
const harmless = "legacy-service-account-token-tracking"

// Write gets whole lines that begin with their severity's letter and, after a
// fatal one, the stacks of thousands of goroutines, which help nobody here.
func (l *libraryLog) Write(line []byte) (int, error) {
	warning := bytes.HasPrefix(line, []byte("W"))
	stacks := bytes.HasPrefix(line, []byte("goroutine "))
	if warning && !l.serving.Load() || stacks || bytes.Contains(line, []byte(harmless)) {
		return len(line), nil
	}
	return l.out.Write(line)
}

// aboveFatal is the number after klog's highest severity: nothing goes past
// libraryLog.
const aboveFatal = "4"

var libraries = &libraryLog{out: os.Stderr}

// quietLibraries sends what the libraries log through libraryLog.
func quietLibraries(verbose bool) {
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	if verbose {
		return
	}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
	klog.LogToStderr(false)
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	// Names and values are klog's own: these cannot fail. One output writes to
	// itself and to those of lower severity, so that of warnings gets errors too.
	_ = flags.Set("stderrthreshold", aboveFatal)
	klog.SetOutput(io.Discard)
	klog.SetOutputBySeverity("WARNING", libraries)
}
