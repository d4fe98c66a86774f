package main

import (
	"bytes"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var loopback = net.IPv4(127, 0, 0, 1)

func mustPKI(t *testing.T, now time.Time, listen net.IP) credentials {
	t.Helper()
	made, err := ensurePKI(now, listen)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func mustPair(t *testing.T, path string) *keyPair {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := parsePair(content)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestCertificatesAreMadeOnceAndKept(t *testing.T) {
	t.Chdir(t.TempDir())
	first := mustPKI(t, time.Now(), loopback)
	second := mustPKI(t, time.Now().Add(300*24*time.Hour), loopback)
	if !bytes.Equal(first.certificate, second.certificate) || !bytes.Equal(first.key, second.key) || !bytes.Equal(first.authority, second.authority) {
		t.Error("a second start made new credentials")
	}
	err := filepath.WalkDir(pkiDir, func(path string, entry os.DirEntry, err error) error {
		info, _ := entry.Info()
		if want := map[bool]os.FileMode{true: 0o700, false: 0o600}[entry.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, not %04o", path, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCertificatesThatEndSoonAreRenewedByTheSameAuthority(t *testing.T) {
	t.Chdir(t.TempDir())
	now := time.Now()
	first := mustPKI(t, now, loopback)
	token, _ := os.ReadFile(tokenKeyFile)
	later := now.AddDate(leafYears, 0, 0).Add(-renewBefore + time.Hour)
	second := mustPKI(t, later, loopback)
	if bytes.Equal(first.certificate, second.certificate) {
		t.Error("29 days before its end the administrator's certificate was kept")
	}
	if !bytes.Equal(first.authority, second.authority) {
		t.Error("the authority was replaced though it lasts for years")
	}
	if after, _ := os.ReadFile(tokenKeyFile); !bytes.Equal(token, after) {
		t.Error("the service account key was replaced: all tokens are void")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(second.authority)
	server := mustPair(t, serverPair).certificate
	if _, err := server.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: later, DNSName: "127.0.0.1"}); err != nil {
		t.Errorf("the new server certificate does not verify: %v", err)
	}
}

func TestANewAuthorityMeansNewCertificates(t *testing.T) {
	t.Chdir(t.TempDir())
	now := time.Now()
	first := mustPKI(t, now, loopback)
	second := mustPKI(t, now.AddDate(authorityYears, 0, -1), loopback)
	if bytes.Equal(first.authority, second.authority) || bytes.Equal(first.certificate, second.certificate) {
		t.Error("an authority that ends tomorrow was kept")
	}
}

func TestTheAdministratorIsInTheGroupThatMayDoEverything(t *testing.T) {
	t.Chdir(t.TempDir())
	mustPKI(t, time.Now(), loopback)
	admin := mustPair(t, adminPair).certificate
	if groups := admin.Subject.Organization; len(groups) != 1 || groups[0] != "system:masters" {
		t.Errorf("groups are %v", groups)
	}
	if admin.IsCA || admin.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Error("the administrator's certificate can do more than identify a client")
	}
}

func TestTheServerCertificateFollowsTheAddress(t *testing.T) {
	t.Chdir(t.TempDir())
	mustPKI(t, time.Now(), loopback)
	other := net.IPv4(192, 0, 2, 7)
	mustPKI(t, time.Now(), other)
	if err := mustPair(t, serverPair).certificate.VerifyHostname(other.String()); err != nil {
		t.Error(err)
	}
}

func TestADamagedLeafIsReplacedAndADamagedAuthorityIsNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	before := mustPKI(t, time.Now(), loopback)
	if err := os.WriteFile(serverPair, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if after := mustPKI(t, time.Now(), loopback); !bytes.Equal(before.authority, after.authority) {
		t.Error("a damaged leaf changed the authority")
	}
	mustPair(t, serverPair)
	if err := os.WriteFile(caPair, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ensurePKI(time.Now(), loopback); err == nil || !strings.Contains(err.Error(), caPair) {
		t.Errorf("the error does not name %s: %v", caPair, err)
	}
}
