// Command network is the pod's end of the TCP connections that hack/bench measures.
// It listens on -listen, says so with one line, and does with each connection what
// its first byte asks for, see the constants. It ends with its container.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
)

// What a connection is for; hack/bench has the same.
const (
	pour = 'p' // write until the other side closes
	sink = 's' // read until the other side has no more, then say how many bytes came
	echo = 'e' // answer each byte with itself
)

// bufferSize is what is read or written in one call, in bytes; as iperf does.
const bufferSize = 128 << 10

func main() {
	address := flag.String("listen", ":5001", "address")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "network:", serve(*address))
	os.Exit(1)
}

// serve returns the error that ended it.
func serve(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening on", l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := handle(conn); err != nil {
				fmt.Fprintln(os.Stderr, "network:", err)
			}
		}()
	}
}

func handle(conn net.Conn) error {
	buf := make([]byte, bufferSize)
	if _, err := io.ReadFull(conn, buf[:1]); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	switch buf[0] {
	case pour:
		for { // the end is an error, which tells nothing
			if _, err := conn.Write(buf); err != nil {
				return nil
			}
		}
	case sink:
		var total uint64
		for {
			n, err := conn.Read(buf)
			total += uint64(n)
			if err == io.EOF {
				return binary.Write(conn, binary.BigEndian, total)
			}
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
		}
	case echo:
		for {
			if _, err := io.ReadFull(conn, buf[:1]); err != nil {
				return nil
			}
			if _, err := conn.Write(buf[:1]); err != nil {
				return nil
			}
		}
	}
	return fmt.Errorf("unknown wish %q", buf[0])
}
