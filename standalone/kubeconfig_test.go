package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func TestKubeconfigIsPrivateAndFollowsTheServer(t *testing.T) {
	t.Chdir(t.TempDir())
	made := mustPKI(t, time.Now(), loopback)
	path := filepath.Join(t.TempDir(), "deeper", "kubeconfig")
	for _, server := range []string{"https://127.0.0.1:1", "https://127.0.0.1:2"} {
		if err := writeKubeconfig(path, server, made); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v, error %v", info.Mode(), err)
		}
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil || config.Host != server {
			t.Fatalf("server %v, error %v", config, err)
		}
	}
	leftovers, _ := os.ReadDir(filepath.Dir(path))
	if len(leftovers) != 1 {
		t.Errorf("beside the kubeconfig there are %v", leftovers)
	}
}

func TestAnUnchangedKubeconfigIsLeftAlone(t *testing.T) {
	t.Chdir(t.TempDir())
	made := mustPKI(t, time.Now(), loopback)
	if err := writeKubeconfig("kubeconfig", "https://127.0.0.1:1", made); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat("kubeconfig")
	if err := writeKubeconfig("kubeconfig", "https://127.0.0.1:1", made); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat("kubeconfig"); !os.SameFile(before, after) {
		t.Error("the same content was written again")
	}
}

func TestAForeignKubeconfigIsNotOverwritten(t *testing.T) {
	t.Chdir(t.TempDir())
	made := mustPKI(t, time.Now(), loopback)
	for _, foreign := range []string{"", "not yaml: [", "clusters: [{name: work, cluster: {server: https://work}}]\n"} {
		if err := os.WriteFile("kubeconfig", []byte(foreign), 0o644); err != nil {
			t.Fatal(err)
		}
		err := writeKubeconfig("kubeconfig", "https://127.0.0.1:1", made)
		if err == nil || !strings.Contains(err.Error(), "choose another path") {
			t.Errorf("%q: %v", foreign, err)
		}
		if kept, _ := os.ReadFile("kubeconfig"); string(kept) != foreign {
			t.Errorf("%q was changed", foreign)
		}
	}
}
