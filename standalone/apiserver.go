package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	generic "k8s.io/kubernetes/pkg/controlplane/apiserver/samples/generic/server"
)

const (
	authenticationFile = "authentication.yaml"
	// authentication lets nobody in without a certificate or a token, but for
	// the answer whether the server is well.
	authentication = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
    - path: /livez
    - path: /readyz
    - path: /healthz
`
	readyPoll = 50 * time.Millisecond
)

// apiServer is upstream's generic control plane, wired but not yet running.
type apiServer struct {
	run      func(context.Context) error
	loopback *rest.Config
}

func newAPIServer(ctx context.Context, listener *listener) (*apiServer, error) {
	if err := writeFileAtomic(authenticationFile, []byte(authentication)); err != nil {
		return nil, err
	}
	options, err := apiOptions(ctx, listener)
	if err != nil {
		return nil, fmt.Errorf("the API server's options: %w", err)
	}
	config, err := generic.NewConfig(options)
	if err != nil {
		return nil, fmt.Errorf("the API server cannot be set up: %w", err)
	}
	extensions := &config.APIExtensions.ExtraConfig
	extensions.CRDRESTOptionsGetter = uncached{extensions.CRDRESTOptionsGetter}
	completed, err := config.Complete()
	if err != nil {
		return nil, fmt.Errorf("the API server cannot be set up: %w", err)
	}
	chain, err := generic.CreateServerChain(completed)
	if err != nil {
		return nil, fmt.Errorf("the API server cannot be set up: %w", err)
	}
	prepared, err := chain.PrepareRun()
	if err != nil {
		return nil, fmt.Errorf("the API server cannot be set up: %w", err)
	}
	return &apiServer{run: prepared.Run, loopback: chain.GenericAPIServer.LoopbackClientConfig}, nil
}

func apiOptions(ctx context.Context, listener *listener) (options.CompletedOptions, error) {
	opts := generic.NewOptions()
	var sets cliflag.NamedFlagSets
	opts.AddFlags(&sets)
	flags := pflag.NewFlagSet("apiserver", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(apiFlags(listener.IP(), listener.Port())); err != nil {
		return options.CompletedOptions{}, err
	}
	if err := opts.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return options.CompletedOptions{}, err
	}
	opts.SecureServing.Listener = listener.Listener
	completed, err := opts.Complete(ctx, nil, nil)
	if err != nil {
		return completed, err
	}
	return completed, utilerrors.NewAggregate(completed.Validate())
}

// apiFlags are upstream's own flags: its most stable interface. Paths are
// relative to the data directory.
func apiFlags(ip net.IP, port int) []string {
	return []string{
		"--etcd-servers=unix://" + etcdSocket,
		"--bind-address=" + ip.String(),
		"--advertise-address=" + ip.String(),
		"--secure-port=" + strconv.Itoa(port),
		"--tls-cert-file=" + serverPair,
		"--tls-private-key-file=" + serverPair,
		"--tls-min-version=VersionTLS13",
		"--client-ca-file=" + caFile,
		"--authentication-config=" + authenticationFile,
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + tokenKeyFile,
		"--service-account-signing-key-file=" + tokenKeyFile,
		// One server has no others to tell that it is alive; idle, nothing is written.
		"--feature-gates=APIServerIdentity=false",
		"--etcd-compaction-interval=" + compactEvery.String(),
		// Told to end, watches end first, in order; then nothing holds the rest up.
		"--shutdown-watch-termination-grace-period=1s",
		"--profiling=false",
	}
}

// waitReady returns when the server answers, with its roles and system
// namespaces in place.
func (a *apiServer) waitReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(a.loopback)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, readyPoll, true, func(ctx context.Context) (bool, error) {
		if client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() != nil {
			return false, nil
		}
		_, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err == nil, nil
	})
}
