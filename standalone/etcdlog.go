package main

import (
	"errors"
	"os"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// etcdLogger passes on warnings and errors. Where etcd would end the process
// with a stack trace, one sentence says what happened.
func etcdLogger() *zap.Logger {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.ISO8601TimeEncoder
	levels := zap.LevelEnablerFunc(func(level zapcore.Level) bool {
		return level >= zapcore.ErrorLevel && level < zapcore.DPanicLevel
	})
	core := zapcore.NewCore(zapcore.NewConsoleEncoder(encoding), zapcore.Lock(os.Stderr), levels)
	return zap.New(core, zap.WithFatalHook(endOfStore{}), zap.WithPanicHook(endOfStore{}))
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
