package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// transport has what is in the folder, or no TLS without one.
func transport(folder string) (credentials.TransportCredentials, error) {
	if folder == "" {
		return insecure.NewCredentials(), nil
	}
	file := func(name string) string { return filepath.Join(folder, name) }
	ca, err := os.ReadFile(file("ca"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("no certificates in %s", file("ca"))
	}
	identity, err := tls.LoadX509KeyPair(file("cert"), file("key"))
	if err != nil {
		return nil, err
	}
	name, err := os.ReadFile(file("name"))
	if err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{
		RootCAs:      roots,
		Certificates: []tls.Certificate{identity},
		ServerName:   strings.TrimSpace(string(name)),
	}), nil
}
