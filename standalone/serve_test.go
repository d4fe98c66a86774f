package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

const thingCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.standalone.test}
spec:
  group: standalone.test
  scope: Namespaced
  names: {plural: things, kind: Thing}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: integer}}
            x-kubernetes-validations: [{rule: "self.size < 10", message: "size must be below 10"}]
          status: {type: object, properties: {round: {type: integer}}}
`

var (
	crds   = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	things = schema.GroupVersionResource{Group: "standalone.test", Version: "v1", Resource: "things"}
)

// clients talk to a server the way that its kubeconfig says.
type clients struct {
	typed   kubernetes.Interface
	dynamic dynamic.Interface
}

func connect(t *testing.T, kubeconfig string) clients {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return clients{typed: kubernetes.NewForConfigOrDie(config), dynamic: dynamic.NewForConfigOrDie(config)}
}

func eventually(t *testing.T, what string, done func(context.Context) (bool, error)) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, 40*time.Second, true, done)
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	made := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &made.Object); err != nil {
		t.Fatal(err)
	}
	return made
}

// The life of one data directory: first start, use, a kill in the middle of
// writing, a second start with everything still there, a clean end.
func TestDataSurvivesAKill(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("a-long-name-", 12), "data")
	first := start(t, "serve", "--data-dir", data, "--listen", "127.0.0.1:0")
	line := first.ready(t)
	kubeconfig, _ := os.ReadFile(line.Kubeconfig)
	t.Run("files are private", func(t *testing.T) { filesArePrivate(t, data) })
	t.Run("strangers are refused", func(t *testing.T) { strangersAreRefused(t, line.Server, first.Process.Pid) })
	t.Run("a second process is refused", func(t *testing.T) { secondProcessIsRefused(t, data, first.Process.Pid) })
	t.Run("a taken port is named", func(t *testing.T) { takenPortIsNamed(t, line.Server) })
	c := connect(t, line.Kubeconfig)
	makeThing(t, c)
	last := writeUntilKilled(t, c, first)

	second := start(t, "serve", "--data-dir", data, "--listen", strings.TrimPrefix(line.Server, "https://"), "--exit-on-stdin-close")
	if again := second.ready(t); again != line {
		t.Errorf("after a restart the ready line is %v, not %v", again, line)
	}
	if after, _ := os.ReadFile(line.Kubeconfig); !bytes.Equal(kubeconfig, after) {
		t.Error("the kubeconfig changed over a restart")
	}
	kept, err := c.dynamic.Resource(things).Namespace("default").Get(t.Context(), "one", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if round, _, _ := unstructured.NestedInt64(kept.Object, "status", "round"); round < last {
		t.Errorf("round %d was acknowledged before the kill, %d is there", last, round)
	}
	t.Run("deletion reaches dependents and namespaces", func(t *testing.T) { deletionIsCompleted(t, c) })
	second.stdin.Close()
	if status := second.endsWithin(t, 10*time.Second); status != 0 {
		t.Errorf("a clean end has status %d", status)
	}
	second.said(t)
	if lines := strings.Count(second.stderr.String(), "\n"); lines > 3 {
		t.Errorf("a healthy life is not quiet: %s", second.stderr)
	}
}

func filesArePrivate(t *testing.T, data string) {
	err := filepath.WalkDir(data, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if os.IsNotExist(err) {
			return nil // the store replaces files while we look
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o: others can use it", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// strangersAreRefused looks at every door: the API asks for a certificate, and
// nothing else listens.
func strangersAreRefused(t *testing.T, server string, pid int) {
	stranger := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for path, want := range map[string]int{"/readyz": 200, "/api": 401, "/api/v1/secrets": 401, "/metrics": 401, "/version": 401} {
		answer, err := stranger.Get(server + path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s answers a stranger %d, not %d", path, answer.StatusCode, want)
		}
	}
	if ports := listeningPorts(t, pid); len(ports) != 1 {
		t.Errorf("the process listens on %d TCP ports: %v", len(ports), ports)
	}
}

// listeningPorts gives the TCP ports that are open in the process itself.
func listeningPorts(t *testing.T, pid int) []string {
	t.Helper()
	own := map[string]bool{}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		target, _ := os.Readlink(link)
		own[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
	}
	var ports []string
	for _, table := range []string{"tcp", "tcp6"} {
		content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		for _, row := range strings.Split(string(content), "\n") {
			if columns := strings.Fields(row); len(columns) > 9 && columns[3] == "0A" && own[columns[9]] {
				ports = append(ports, columns[1])
			}
		}
	}
	return ports
}

func secondProcessIsRefused(t *testing.T, data string, pid int) {
	second := start(t, "serve", "--data-dir", data, "--listen", "127.0.0.1:0")
	if status := second.endsWithin(t, 10*time.Second); status != 1 {
		t.Errorf("status %d", status)
	}
	second.said(t, data, fmt.Sprintf("process %d", pid), "--data-dir")
}

func takenPortIsNamed(t *testing.T, server string) {
	address := strings.TrimPrefix(server, "https://")
	other := start(t, "serve", "--data-dir", t.TempDir(), "--listen", address)
	if status := other.endsWithin(t, 10*time.Second); status != 1 {
		t.Errorf("status %d", status)
	}
	_, port, _ := net.SplitHostPort(address)
	other.said(t, "Port "+port, "taken", "--listen")
}

func makeThing(t *testing.T, c clients) {
	t.Helper()
	if _, err := c.dynamic.Resource(crds).Create(t.Context(), object(t, thingCRD), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	thing := object(t, "{apiVersion: standalone.test/v1, kind: Thing, metadata: {name: one}, spec: {size: 1}}")
	eventually(t, "a custom resource can be made", func(ctx context.Context) (bool, error) {
		_, err := c.dynamic.Resource(things).Namespace("default").Create(ctx, thing, metav1.CreateOptions{})
		return err == nil, nil
	})
	bad := object(t, "{apiVersion: standalone.test/v1, kind: Thing, metadata: {name: bad}, spec: {size: 11}}")
	_, err := c.dynamic.Resource(things).Namespace("default").Create(t.Context(), bad, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "size must be below 10") {
		t.Errorf("the rule in CEL did not refuse: %v", err)
	}
}

// writeUntilKilled writes statuses and kills the server in between; it gives
// the last round that was acknowledged.
func writeUntilKilled(t *testing.T, c clients, p *program) int64 {
	t.Helper()
	var last int64
	for round := int64(1); ; round++ {
		status := object(t, fmt.Sprintf("{apiVersion: standalone.test/v1, kind: Thing, metadata: {name: one}, status: {round: %d}}", round))
		_, err := c.dynamic.Resource(things).Namespace("default").ApplyStatus(t.Context(), "one", status, metav1.ApplyOptions{FieldManager: "test"})
		if err != nil && round <= 25 {
			t.Fatal(err)
		}
		if err != nil {
			break
		}
		last = round
		if round == 25 {
			go func() { _ = p.Process.Kill() }()
		}
	}
	<-p.ended
	return last
}

func deletionIsCompleted(t *testing.T, c clients) {
	const space = "doomed"
	core := c.typed.CoreV1()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}}
	if _, err := core.Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := core.ConfigMaps(space).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "in-it"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := core.Namespaces().Delete(t.Context(), space, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	owner, err := c.dynamic.Resource(things).Namespace("default").Get(t.Context(), "one", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dependent := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "dependent", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "standalone.test/v1", Kind: "Thing", Name: "one", UID: owner.GetUID()},
	}}}
	if _, err := core.ConfigMaps("default").Create(t.Context(), dependent, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.dynamic.Resource(things).Namespace("default").Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the dependent of a deleted owner goes", func(ctx context.Context) (bool, error) {
		_, err := core.ConfigMaps("default").Get(ctx, "dependent", metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
	eventually(t, "the deleted namespace goes", func(ctx context.Context) (bool, error) {
		_, err := core.Namespaces().Get(ctx, space, metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
}
