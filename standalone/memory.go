package main

import (
	"os"
	"runtime/debug"
)

// gcPercent trades processor time for memory: the heap may grow by this part
// of what is in use before it is collected (Go's own default is 100).
const gcPercent = 50

func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// settleMemory gives back what only the start needed.
func settleMemory() { debug.FreeOSMemory() }
