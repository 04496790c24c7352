// Command web is the server of the web test image. It answers each request with
// its host name and the request's path, and ends on SIGTERM. The port is the
// first argument, or the variable PORT, or 8080.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "echo" {
		echo(os.Args[2:])
	}
	port := cmp.Or(os.Getenv("PORT"), "8080")
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	host, _ := os.Hostname()
	server := &http.Server{
		Addr:              ":" + port,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s\n", host, r.URL.Path)
		}),
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Println("listening on port", port)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

func echo(addresses []string) {
	for _, a := range addresses {
		l, err := net.Listen("tcp", a)
		if err != nil {
			fmt.Fprintln(os.Stderr, "web:", err)
			os.Exit(1)
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					if n, err := io.Copy(conn, conn); err == nil {
						fmt.Fprintf(conn, "\nthat were %d bytes\n", n)
					}
				}()
			}
		}()
	}
	fmt.Println("listening on", addresses)
	select {}
}
