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

// startRegistry serves an empty registry from this process's memory on a free
// loopback port.
func (e *Env) startRegistry() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start registry: %w", err)
	}
	quiet := log.New(io.Discard, "", 0)
	srv := &http.Server{Handler: registry.New(registry.Logger(quiet)), ErrorLog: quiet}
	e.Registry = l.Addr().String()
	e.undo.Add(func() { srv.Close() })
	go srv.Serve(l)
	return nil
}
