package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// kubeName is the cluster, user and context in the kubeconfig, and how we know
// a file that we wrote.
const kubeName = "tenantry-standalone"

// writeKubeconfig puts the administrator's kubeconfig in place. A file that is
// not ours is refused: it may hold the only copy of somebody's credentials.
func writeKubeconfig(path, server string, c credentials) error {
	content, err := clientcmd.Write(kubeconfig(server, c))
	if err != nil {
		return fmt.Errorf("cannot make the kubeconfig: %w", err)
	}
	existing, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("--kubeconfig %s: %w", path, explainFull(filepath.Dir(path), err))
		}
	case err != nil:
		return fmt.Errorf("--kubeconfig: %w", err)
	case bytes.Equal(existing, content):
		return os.Chmod(path, 0o600)
	case !isOurs(existing):
		return fmt.Errorf("--kubeconfig %s already exists and is another cluster's: choose another path, so that it is not lost", path)
	}
	return writeFileAtomic(path, content)
}

func isOurs(content []byte) bool {
	config, err := clientcmd.Load(content)
	if err != nil || len(config.Clusters) != 1 || len(config.AuthInfos) != 1 {
		return false
	}
	return config.Clusters[kubeName] != nil
}

func kubeconfig(server string, c credentials) api.Config {
	return api.Config{
		Clusters: map[string]*api.Cluster{kubeName: {Server: server, CertificateAuthorityData: c.authority}},
		AuthInfos: map[string]*api.AuthInfo{
			kubeName: {ClientCertificateData: c.certificate, ClientKeyData: c.key},
		},
		Contexts:       map[string]*api.Context{kubeName: {Cluster: kubeName, AuthInfo: kubeName, Namespace: "default"}},
		CurrentContext: kubeName,
	}
}
