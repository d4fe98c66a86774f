package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// openListener opens the port at once, so that a taken one is known before
// anything is started, and port 0 can be reported as what it became.
func openListener(address string) (*listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("--listen %q is not an address and a port: write it like 127.0.0.1:7441", address)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip := net.ParseIP(host)
	if ip == nil || ip.IsUnspecified() {
		return nil, fmt.Errorf("--listen %q: name one address of this machine as numbers, like 127.0.0.1:7441", address)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, fmt.Errorf("--listen %q: the port must be a number from 0 to 65535", address)
	} else if number == 0 {
		port = "0"
	}
	opened, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, explainListen(host, port, err)
	}
	return &listener{opened}, nil
}

func explainListen(host, port string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %s on %s is taken by another program: end that program, or choose another port with --listen %s (port 0 picks a free one)",
			port, host, net.JoinHostPort(host, "PORT"))
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("port %s on %s may not be used by this user: choose a port above 1023 with --listen", port, host)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this machine: choose one that is with --listen", host)
	}
	return fmt.Errorf("cannot listen on %s: %w", net.JoinHostPort(host, port), err)
}
