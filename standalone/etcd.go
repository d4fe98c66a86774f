package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

const (
	etcdDir      = "etcd"
	etcdDatabase = etcdDir + "/member/snap/db"
	etcdSocket   = "etcd.sock"
	// walSegmentBytes is preallocated twice; etcd's own 64 MB is made for busy clusters.
	walSegmentBytes = 8 << 20
	// snapshotEntries is after how many writes the log in memory is cut.
	snapshotEntries = 500
	// progressEvery is how often an idle watch is told how far the store is: well
	// below compactEvery, so that it can resume from there.
	progressEvery = 20 * time.Second
	// compactEvery is for how long old versions are kept: once to twice this time.
	compactEvery = time.Minute
	// etcdStartsWithin covers replaying the log after a crash on a slow disk.
	etcdStartsWithin = time.Minute
)

// startEtcd runs the store. Its only door is a unix socket in the data
// directory (0700): no other local user reaches it.
func startEtcd(ctx context.Context) (*embed.Etcd, error) {
	wal.SegmentSizeBytes = walSegmentBytes
	context.AfterFunc(ctx, func() { ending.Store(true) })
	store, err := embed.StartEtcd(etcdConfig())
	if err != nil {
		return nil, fmt.Errorf("the store (etcd) did not start: %w", explainFull("the data directory", err))
	}
	select {
	case <-store.Server.ReadyNotify():
	case err := <-store.Err():
		return nil, fmt.Errorf("the store (etcd) did not start: %w", err)
	case <-time.After(etcdStartsWithin):
		return nil, fmt.Errorf("the store (etcd) was not ready within %s", etcdStartsWithin)
	case <-ctx.Done():
		store.Close()
		return nil, ctx.Err()
	}
	// A store that was once full stays read-only until this is said; if it is
	// still full, the next write sets it again.
	_, err = store.Server.Alarm(ctx, &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_DEACTIVATE,
		Alarm:  etcdserverpb.AlarmType_NOSPACE,
	})
	if err != nil {
		store.Close()
		return nil, fmt.Errorf("the store (etcd) does not accept writes: %w", err)
	}
	return store, nil
}

func etcdConfig() *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = "tenantry-standalone"
	cfg.Dir = etcdDir
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Host: etcdSocket}}
	// Never dialled: there are no other members and no other clients.
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "unix", Host: "localhost:0"}}
	cfg.ListenPeerUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:0"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.EnableGRPCGateway = false
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(etcdLogger())
	cfg.SnapshotCount = snapshotEntries
	cfg.SnapshotCatchUpEntries = snapshotEntries
	cfg.BootstrapDefragThresholdMegabytes = 64
	cfg.WatchProgressNotifyInterval = progressEvery
	cfg.WarningApplyDuration = time.Second
	cfg.WarningUnaryRequestDuration = 2 * time.Second
	return cfg
}
