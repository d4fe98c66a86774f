package main

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
)

// watched is a storage that only remembers what it was asked.
type watched struct {
	storage.Interface
	asked storage.ListOptions
}

func (w *watched) Watch(_ context.Context, _ string, opts storage.ListOptions) (watch.Interface, error) {
	w.asked = opts
	return nil, nil
}

func TestProgressIsForThoseWhoAskForBookmarks(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		inner := &watched{}
		opts := storage.ListOptions{Predicate: storage.SelectionPredicate{AllowWatchBookmarks: wanted}}
		if _, err := (bookmarking{inner}).Watch(context.Background(), "/things", opts); err != nil {
			t.Fatal(err)
		}
		if inner.asked.ProgressNotify != wanted {
			t.Errorf("bookmarks %v gave progress %v", wanted, inner.asked.ProgressNotify)
		}
	}
}
