package main

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"
)

// uncached stores custom resources without upstream's watch cache. That cache
// keeps every version of the last 75 seconds decoded, about 55 KB for a status
// of 8 KB: 4,000 status writes in a row would take 220 MB. It pays for clusters
// with hundreds of watchers; here there are a few, and each reads the store.
type uncached struct{ generic.RESTOptionsGetter }

// GetRESTOptions is upstream's, with the cache taken out.
func (u uncached) GetRESTOptions(resource schema.GroupResource, example runtime.Object) (generic.RESTOptions, error) {
	options, err := u.RESTOptionsGetter.GetRESTOptions(resource, example)
	options.Decorator = withBookmarks
	return options, err
}

// withBookmarks is upstream's plain storage in the shape of a decorator.
func withBookmarks(config *storagebackend.ConfigForResource, prefix string, key func(runtime.Object) (string, error),
	object, list func() runtime.Object, attributes storage.AttrFunc, triggers storage.IndexerFuncs, indexers *cache.Indexers,
) (storage.Interface, factory.DestroyFunc, error) {
	plain, destroy, err := generic.UndecoratedStorage(config, prefix, key, object, list, attributes, triggers, indexers)
	return bookmarking{plain}, destroy, err
}

// bookmarking gives watchers that ask for bookmarks the store's progress. So
// one that saw no event for long can resume, though old versions are gone.
type bookmarking struct{ storage.Interface }

// Watch is upstream's, with progress where bookmarks are wanted.
func (b bookmarking) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	opts.ProgressNotify = opts.ProgressNotify || opts.Predicate.AllowWatchBookmarks
	return b.Interface.Watch(ctx, key, opts)
}
