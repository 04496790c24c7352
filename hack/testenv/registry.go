package testenv

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/registry"
)

const modulePath = "github.com/cri-sandbox/cri-sandbox"

func isRootModule(gomod []byte) bool {
	line, _, _ := bytes.Cut(gomod, []byte("\n"))
	return string(bytes.TrimSpace(line)) == "module "+modulePath
}

// serveRegistry serves an empty registry from this process's memory on a free
// loopback port, the server's Addr.
func serveRegistry() (*http.Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	srv := &http.Server{Addr: l.Addr().String(), Handler: registry.New(registry.Logger(quiet)), ErrorLog: quiet}
	go srv.Serve(l)
	return srv, nil
}
