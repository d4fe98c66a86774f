package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// stopWithin bounds a clean end. The store is safe at any moment, so what has
// not ended by then may be cut off.
const stopWithin = 4 * time.Second

// run serves until ctx is done. Everything that a person can have got wrong
// (directory, port, files) is looked at before anything is started.
func run(ctx context.Context, s settings) error {
	dir, err := openDataDir(s.dataDir)
	if err != nil {
		return err
	}
	defer dir.close()
	listener, err := openListener(s.listen)
	if err != nil {
		return err
	}
	// Never closed: the API server would take that for a failure. It ends with
	// the process.
	if err := dir.checkSpace(); err != nil {
		return err
	}
	go dir.watchSpace(ctx)
	credentials, err := ensurePKI(time.Now(), listener.IP())
	if err != nil {
		return err
	}
	server := "https://" + listener.Addr().String()
	if err := writeKubeconfig(s.kubeconfig, server, credentials); err != nil {
		return err
	}
	files := newMappedFiles(filepath.Join(dir.path, etcdDatabase))
	go followLoad(ctx, files)
	return serve(ctx, listener, files, readyLine{Ready: true, Server: server, Kubeconfig: s.kubeconfig})
}

// serve starts the store and then the API server, and ends them in the
// opposite order.
func serve(ctx context.Context, listener *listener, files *mappedFiles, ready readyLine) error {
	store, err := startEtcd(ctx)
	if err != nil {
		return ignoreAfterStop(ctx, err)
	}
	api, err := newAPIServer(ctx, listener)
	if err != nil {
		return ignoreAfterStop(ctx, err)
	}
	halt := make(chan struct{})
	serving := wait.ContextForChannel(halt)
	ended, started := make(chan error, 1), make(chan error, 1)
	go func() { ended <- api.run(serving) }()
	go func() { started <- announce(serving, api, files, ready) }()
	select {
	case err = <-started:
	case err = <-ended:
		return ignoreAfterStop(ctx, err)
	case <-ctx.Done():
		// Upstream takes a start that is cut short for a fatal error. The store
		// is safe at any moment: the process just ends.
		return nil
	}
	if err != nil {
		return ignoreAfterStop(ctx, err)
	}
	go renewDaily(serving, listener, ready)
	select {
	case err = <-ended:
		return ignoreAfterStop(ctx, err)
	case err = <-store.Err():
		return ignoreAfterStop(ctx, fmt.Errorf("the store (etcd) ended by itself: %w", err))
	case <-ctx.Done():
	}
	close(halt)
	endWithin(stopWithin/2, func() { <-ended })
	files.forget()
	endWithin(stopWithin/2, store.Close)
	return nil
}

// announce says that the server answers, once it does.
func announce(ctx context.Context, api *apiServer, files *mappedFiles, ready readyLine) error {
	if err := api.waitReady(ctx); err != nil {
		return err
	}
	if err := startControllers(ctx, api.loopback); err != nil {
		return err
	}
	libraries.serving.Store(true)
	ready.print(os.Stdout)
	settle(files)
	return nil
}

// ignoreAfterStop drops an error that is only the consequence of being told to end.
func ignoreAfterStop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		return errors.New("the API server ended by itself")
	}
	return err
}

// endWithin waits for the end of something, but not for ever.
func endWithin(limit time.Duration, end func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		end()
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}

// readyLine is what standard output gets, once, when requests are answered.
type readyLine struct {
	Ready      bool   `json:"ready"`
	Server     string `json:"server"`
	Kubeconfig string `json:"kubeconfig"`
}

func (r readyLine) print(out io.Writer) {
	// A closed standard output is no reason to end: the kubeconfig says the same.
	_ = json.NewEncoder(out).Encode(r)
}

// untilStdinCloses gives a context that also ends when in reaches its end: the
// parent holds the other side of the pipe, so it cannot die without us.
func untilStdinCloses(parent context.Context, in io.Reader) context.Context {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx
}

// listener is an open port, with its address as an IP.
type listener struct{ net.Listener }

// IP is the address that is listened on.
func (l *listener) IP() net.IP { return l.Addr().(*net.TCPAddr).IP }

// Port is the port that is listened on.
func (l *listener) Port() int { return l.Addr().(*net.TCPAddr).Port }
