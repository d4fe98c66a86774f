// Command tenantry-standalone is a Kubernetes control plane in one process, for
// a machine without a cluster: an API server, its store, and the controllers
// that delete what belongs to deleted owners and namespaces. No pods, no nodes.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	settings, err := parseSettings(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		complain("%v", err)
		os.Exit(2)
	}
	quietLibraries(settings.verbose)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if settings.exitOnStdinClose {
		ctx = untilStdinCloses(ctx, os.Stdin)
	}
	if err := run(ctx, settings); err != nil {
		complain("%v", err)
		os.Exit(1)
	}
}
