// Command sockets shows, from inside a sandbox, what sysctls are about.
//
//	bind PORT        listen on a TCP port
//	ping             a ping of 127.0.0.1 by a ping socket
//	defaults         what a new TCP socket has: keep-alive, FIN time-out, buffers
//	ephemeral N      the lowest and the highest of N ports of the kernel's choice
//	backlog PORT     listen with a backlog of 8 and greet who is accepted
//	shm-make, shm-read ID    leave a System V segment behind, and read it
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1], append(os.Args, "0")[2]); err != nil {
		fmt.Println(os.Args[1], "failed:", err)
		os.Exit(1)
	}
}

func run(what, arg string) error {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	switch what {
	case "bind":
		l, err := net.Listen("tcp4", fmt.Sprint("127.0.0.1:", n))
		if err != nil {
			return err
		}
		fmt.Println("bound", l.Addr().(*net.TCPAddr).Port)
		return l.Close()
	case "ping":
		return ping()
	case "defaults":
		return defaults()
	case "ephemeral":
		return ephemeral(n)
	case "backlog":
		return backlog(n)
	case "shm-make":
		return shmMake()
	case "shm-read":
		return shmRead(n)
	}
	return fmt.Errorf("unknown")
}

func ping() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	const echo, reply = 8, 0
	request := []byte{echo, 0, 0, 0, 0, 0, 0, 1, 'h', 'i'}
	if err := unix.Sendto(s, request, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	answer := make([]byte, 64)
	got, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil {
		return err
	}
	if got != len(request) || answer[0] != reply {
		return fmt.Errorf("answer %v", answer[:got])
	}
	fmt.Println("pinged")
	return nil
}

func defaults() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	var out []any
	for _, o := range []struct{ level, opt int }{
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
		{unix.IPPROTO_TCP, unix.TCP_LINGER2}, {unix.SOL_SOCKET, unix.SO_RCVBUF}, {unix.SOL_SOCKET, unix.SO_SNDBUF},
	} {
		v, err := unix.GetsockoptInt(s, o.level, o.opt)
		if err != nil {
			return err
		}
		out = append(out, v)
	}
	fmt.Println(append([]any{"defaults"}, out...)...)
	return nil
}

func ephemeral(n int) error {
	low, high := 1<<16, 0
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		low, high = min(low, port), max(high, port)
	}
	fmt.Println("ephemeral", low, high)
	return nil
}

func backlog(port int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(s, &unix.SockaddrInet4{Port: port}); err != nil {
		return err
	}
	if err := unix.Listen(s, 8); err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, _, err := unix.Accept(s)
		if err != nil {
			return err
		}
		if _, err := unix.Write(c, []byte("hi")); err != nil {
			return err
		}
	}
}

func shmMake() error {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, 0o600)
	if err != nil {
		return err
	}
	b, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return err
	}
	copy(b, "kept")
	fmt.Println("id", id)
	return unix.SysvShmDetach(b)
}

func shmRead(id int) error {
	b, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY)
	if err != nil {
		return err
	}
	fmt.Println("read", unsafe.String(&b[0], 4))
	return nil
}
