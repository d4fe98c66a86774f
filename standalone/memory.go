package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The heap may grow by a part of what is in use before it is collected (Go's
// own default is 100 percent). At rest memory counts; under load every write
// allocates some megabytes, and collecting too often would slow writes down.
const (
	restPercent = 40
	loadPercent = 70
	lookEvery   = 5 * time.Second
	// loadCollections in lookEvery mean load; at rest there is one in minutes.
	loadCollections = 3
)

// followLoad sets the collector to the load, and gives unused memory back to
// the system when a load (or the start) is over. Whoever sets GOGC decides.
func followLoad(ctx context.Context, files *mappedFiles) {
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(restPercent)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	loaded, before := true, collections()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := collections()
		wasLoaded := loaded
		loaded, before = now-before >= loadCollections, now
		switch {
		case loaded && !wasLoaded:
			debug.SetGCPercent(loadPercent)
		case !loaded && wasLoaded:
			debug.SetGCPercent(restPercent)
			settle(files)
		}
	}
}

// settle gives back what only the work before needed.
func settle(files *mappedFiles) {
	debug.FreeOSMemory()
	files.giveBack()
}

// collections counts the collections that the heap's growth caused.
func collections() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/automatic:gc-cycles"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
