package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	pkiDir         = "pki"
	caPair         = pkiDir + "/ca.pem"     // the authority's certificate and key
	caFile         = pkiDir + "/ca.crt"     // its certificate alone, for the API server
	serverPair     = pkiDir + "/server.pem" // certificate and key in one file: written together or not at all
	adminPair      = pkiDir + "/admin.pem"
	tokenKeyFile   = pkiDir + "/service-account.key"
	authorityYears = 10
	leafYears      = 1
	renewBefore    = 30 * 24 * time.Hour
	// clockSlack lets a client whose clock is a little behind still connect.
	clockSlack = time.Hour
)

// credentials are what a kubeconfig holds, all PEM.
type credentials struct {
	authority   []byte
	certificate []byte
	key         []byte
}

// keyPair is a certificate with its key.
type keyPair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// ensurePKI makes the certificates and keys that are missing or end soon, in
// the working directory, and keeps all others.
func ensurePKI(now time.Time, listen net.IP) (credentials, error) {
	if err := os.MkdirAll(pkiDir, 0o700); err != nil {
		return credentials{}, fmt.Errorf("cannot make %s: %w", pkiDir, explainFull(".", err))
	}
	authority, err := ensurePair(caPair, now, authorityTemplate(now), nil)
	if err != nil {
		return credentials{}, err
	}
	certificate := pemBlock("CERTIFICATE", authority.certificate.Raw)
	if written, err := os.ReadFile(caFile); err != nil || !bytes.Equal(written, certificate) {
		if err := writeFileAtomic(caFile, certificate); err != nil {
			return credentials{}, err
		}
	}
	if _, err := ensurePair(serverPair, now, serverTemplate(now, listen), authority); err != nil {
		return credentials{}, err
	}
	admin, err := ensurePair(adminPair, now, adminTemplate(now), authority)
	if err != nil {
		return credentials{}, err
	}
	if err := ensureTokenKey(); err != nil {
		return credentials{}, err
	}
	key, err := admin.keyPEM()
	if err != nil {
		return credentials{}, err
	}
	return credentials{authority: certificate, certificate: pemBlock("CERTIFICATE", admin.certificate.Raw), key: key}, nil
}

// ensurePair reads a pair, or makes it where it is missing, ends soon, was
// signed by another authority or lacks a name.
func ensurePair(path string, now time.Time, template *x509.Certificate, authority *keyPair) (*keyPair, error) {
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("cannot read a certificate: %w", err)
	default:
		pair, err := parsePair(content)
		if err == nil && pair.serves(now, template, authority) {
			return pair, nil
		}
		if err != nil && authority == nil {
			return nil, fmt.Errorf("%s is damaged (%w): put it back from a backup, or delete %s to get new certificates and a new kubeconfig", path, err, pkiDir)
		}
	}
	pair, err := issue(template, authority)
	if err != nil {
		return nil, fmt.Errorf("cannot make the certificate %s: %w", path, err)
	}
	return pair, writeFileAtomic(path, pair.pem)
}

// serves tells whether the pair can be used for longer than renewBefore in the
// template's place.
func (p *keyPair) serves(now time.Time, template *x509.Certificate, authority *keyPair) bool {
	if now.Add(renewBefore).After(p.certificate.NotAfter) || now.Before(p.certificate.NotBefore) {
		return false
	}
	if authority != nil && p.certificate.CheckSignatureFrom(authority.certificate) != nil {
		return false
	}
	for _, ip := range template.IPAddresses {
		if p.certificate.VerifyHostname(ip.String()) != nil {
			return false
		}
	}
	return p.certificate.Subject.String() == template.Subject.String()
}

func parsePair(content []byte) (*keyPair, error) {
	pair, err := tls.X509KeyPair(content, content)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("its key is not an ECDSA key")
	}
	return &keyPair{certificate: pair.Leaf, key: key, pem: content}, nil
}

// issue makes a key and its certificate, signed by the authority or by itself.
func issue(template *x509.Certificate, authority *keyPair) (*keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	parent, signer := template, key
	if authority != nil {
		parent, signer = authority.certificate, authority.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pair := &keyPair{certificate: certificate, key: key}
	keyPEM, err := pair.keyPEM()
	pair.pem = append(pemBlock("CERTIFICATE", der), keyPEM...)
	return pair, err
}

func (p *keyPair) keyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, err
	}
	return pemBlock("PRIVATE KEY", der), nil
}

// ensureTokenKey makes the key that signs service account tokens. It has no
// end: replacing it would void every token.
func ensureTokenKey() error {
	if _, err := os.Stat(tokenKeyFile); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read %s: %w", filepath.Base(tokenKeyFile), err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("cannot make the service account key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("cannot make the service account key: %w", err)
	}
	return writeFileAtomic(tokenKeyFile, pemBlock("EC PRIVATE KEY", der))
}

func authorityTemplate(now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: "tenantry-standalone authority"},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.AddDate(authorityYears, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
}

func serverTemplate(now time.Time, listen net.IP) *x509.Certificate {
	template := leafTemplate(now, pkix.Name{CommonName: "tenantry-standalone"}, x509.ExtKeyUsageServerAuth)
	template.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if !listen.IsLoopback() || listen.To4() != nil {
		template.IPAddresses = append(template.IPAddresses, listen)
	}
	return template
}

// adminTemplate names a member of the group that may do everything.
func adminTemplate(now time.Time) *x509.Certificate {
	name := pkix.Name{CommonName: "tenantry-admin", Organization: []string{"system:masters"}}
	return leafTemplate(now, name, x509.ExtKeyUsageClientAuth)
}

func leafTemplate(now time.Time, name pkix.Name, usage x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		Subject:     name,
		NotBefore:   now.Add(-clockSlack),
		NotAfter:    now.AddDate(leafYears, 0, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
