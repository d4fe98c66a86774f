package main

import (
	"context"
	"time"
)

// renewDaily looks once a day whether a certificate ends soon. The API server
// notices a new file by itself; clients find theirs in the kubeconfig.
func renewDaily(ctx context.Context, listener *listener, ready readyLine) {
	day := time.NewTicker(24 * time.Hour)
	defer day.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-day.C:
			credentials, err := ensurePKI(now, listener.IP())
			if err == nil {
				err = writeKubeconfig(ready.Kubeconfig, ready.Server, credentials)
			}
			if err != nil {
				complain("The certificates could not be renewed, and this is tried again tomorrow: %v", err)
			}
		}
	}
}
