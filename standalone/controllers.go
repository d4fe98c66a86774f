package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
)

const (
	collectorWorkers = 4
	namespaceWorkers = 2
	// discoveryPeriod is how soon the collector notices a new kind of resource.
	discoveryPeriod = 10 * time.Second
	namespaceResync = 5 * time.Minute
)

// startControllers runs the two controllers without which deletion does not
// end: the garbage collector and the namespace controller.
func startControllers(ctx context.Context, loopback *rest.Config) error {
	client, err := kubernetes.NewForConfig(named(loopback, "controllers"))
	if err != nil {
		return fmt.Errorf("the controllers cannot be set up: %w", err)
	}
	metadataClient, err := metadata.NewForConfig(named(loopback, "controllers"))
	if err != nil {
		return fmt.Errorf("the controllers cannot be set up: %w", err)
	}
	typed := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(dropManagedFields))
	partial := metadatainformer.NewSharedInformerFactoryWithOptions(metadataClient, 0, metadatainformer.WithTransform(dropManagedFields))
	started := make(chan struct{})
	if err := startCollector(ctx, client, metadataClient, informerfactory.NewInformerFactory(typed, partial), started); err != nil {
		return err
	}
	namespaces := namespace.NewNamespaceController(ctx, client, metadataClient, client.Discovery().ServerPreferredNamespacedResources,
		typed.Core().V1().Namespaces(), namespaceResync, corev1.FinalizerKubernetes)
	go namespaces.Run(ctx, namespaceWorkers)
	typed.Start(ctx.Done())
	partial.Start(ctx.Done())
	close(started)
	return nil
}

func startCollector(ctx context.Context, client kubernetes.Interface, metadataClient metadata.Interface, factory informerfactory.InformerFactory, started <-chan struct{}) error {
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, metadataClient, mapper,
		garbagecollector.DefaultIgnoredResources(), factory, started)
	if err != nil {
		return fmt.Errorf("the garbage collector cannot be set up: %w", err)
	}
	go collector.Run(ctx, collectorWorkers, discoveryPeriod)
	go collector.Sync(ctx, client.Discovery(), discoveryPeriod)
	return nil
}

func named(config *rest.Config, name string) *rest.Config {
	return rest.AddUserAgent(rest.CopyConfig(config), name)
}

// dropManagedFields keeps the controllers' caches small: they never look at
// who wrote which field.
func dropManagedFields(object any) (any, error) {
	if accessor, err := meta.Accessor(object); err == nil {
		accessor.SetManagedFields(nil)
	}
	return object, nil
}
