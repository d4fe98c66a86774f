package main

import (
	"net"
	"strings"
	"testing"
)

func TestAPortIsOpened(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "localhost:0"} {
		opened, err := openListener(address)
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		if opened.Port() == 0 || !opened.IP().IsLoopback() {
			t.Errorf("%s became %s", address, opened.Addr())
		}
	}
}

func TestATakenPortIsNamedWithWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = openListener(taken.Addr().String())
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, want := range []string{"port " + port, "taken", "--listen"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestBadAddressesAreRefused(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1", ":7441", "0.0.0.0:7441", "[::]:7441", "example.com:7441", "127.0.0.1:70000", "127.0.0.1:https", "127.0.0.1:-1"} {
		if opened, err := openListener(address); err == nil {
			opened.Close()
			t.Errorf("%q was accepted as %s", address, opened.Addr())
		} else if !strings.Contains(err.Error(), "--listen") {
			t.Errorf("%q: the error does not name the flag: %v", address, err)
		}
	}
}
