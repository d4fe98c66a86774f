package main

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// ending is set when the store is told to end: what it logs then (listeners
// that are closed) is no error.
var ending atomic.Bool

// etcdLogger passes on errors. Where etcd would end the process with a stack
// trace, one sentence says what happened.
func etcdLogger() *zap.Logger {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.ISO8601TimeEncoder
	levels := zap.LevelEnablerFunc(func(level zapcore.Level) bool {
		return level >= zapcore.ErrorLevel && level < zapcore.DPanicLevel && !ending.Load()
	})
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(encoding), zapcore.Lock(os.Stderr), levels)
	return zap.New(withoutDatabase{core}, zap.WithFatalHook(endOfStore{}), zap.WithPanicHook(endOfStore{}))
}

// withoutDatabase leaves out what the database file's own logger says: etcd
// ends over every such error, and endOfStore then says it better.
type withoutDatabase struct{ zapcore.Core }

// Check is the core's, but for the database's logger.
func (w withoutDatabase) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.LoggerName == "bbolt" {
		return checked
	}
	return w.Core.Check(entry, checked)
}

// With keeps the exception when fields are added.
func (w withoutDatabase) With(fields []zapcore.Field) zapcore.Core {
	return withoutDatabase{w.Core.With(fields)}
}

// endOfStore ends the process: the store cannot go on, and what was
// acknowledged is on disk.
type endOfStore struct{}

// OnWrite is called with the entry that etcd regards as fatal.
func (endOfStore) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	var cause error
	for _, field := range fields {
		if err, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
			cause = err
		}
	}
	switch {
	case errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT):
		complain("The disk that holds the data directory is full, so nothing more can be stored. Free some space and start again: nothing that was acknowledged is lost")
	case cause != nil:
		complain("The store (etcd) cannot go on: %s: %v", entry.Message, cause)
	default:
		complain("The store (etcd) cannot go on: %s", entry.Message)
	}
	os.Exit(1)
}
