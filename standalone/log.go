package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
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

// quietLibraries lets only errors of the Kubernetes, gRPC and etcd libraries
// reach standard error while the server starts: the warnings of a start are
// the same every time and ask for nothing. Then logWarnings is called.
func quietLibraries(verbose bool) {
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	if verbose {
		return
	}
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
	setLibraryThreshold("ERROR")
}

// logWarnings lets the warnings of the Kubernetes libraries through as well.
func logWarnings() { setLibraryThreshold("WARNING") }

func setLibraryThreshold(severity string) {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	// The name and the value are klog's own: this cannot fail.
	_ = flags.Set("stderrthreshold", severity)
}
