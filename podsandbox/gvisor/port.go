package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// DialPort implements engine.PortDialer.
func (s *Sandbox) DialPort(ctx context.Context, port uint16) (net.Conn, error) {
	dial := s.programs.dial
	if s.settings.hostNetwork {
		dial = dialLoopback
	}
	conn, err := dial(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("port %d: %w", port, err)
	}
	return conn, nil
}

// dial connects to a port inside the sandbox. It runs a small program in the root container, given by descriptor as
// the one that sets sysctls is. It connects to the loopback interface of the
// sandbox and copies between that and a socket.
//
// The sandbox has a call of its own for this, containerManager.PortForward. It is
// not used. It takes no notice of short writes: of ten echoes of 5 MiB at once,
// half stood still for good with bytes missing. It ends both directions with the
// first, knows IPv4 alone, and holds the lock of all control calls until a
// listener has taken the connection, which a program that hangs may never do.
func (r *rootPrograms) dial(ctx context.Context, port uint16) (net.Conn, error) {
	ours, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(ours) // a copy
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, err
	}
	cu := cleanup.Make(func() { conn.Close() }) // which ends the program
	defer cu.Clean()
	err = r.runConnect(ctx, port, theirs)
	theirs.Close()
	if err != nil {
		return nil, err
	}
	if err := awaitConnected(ctx, conn); err != nil {
		return nil, err
	}
	cu.Release()
	return conn, nil
}

// runConnect starts the program. It ends with its socket.
func (r *rootPrograms) runConnect(ctx context.Context, port uint16, socket *os.File) error {
	program, err := memoryFile("connect", guest.Connect(port))
	if err != nil {
		return err
	}
	defer program.Close()
	pid, err := r.start(ctx, rootProgram{file: program, args: []string{"port-forward", strconv.Itoa(int(port))}, stdin: socket})
	if err != nil {
		return err
	}
	go func() {
		_, _ = r.wait(context.Background(), pid)
	}()
	return nil
}

// awaitConnected reads how connecting went.
func awaitConnected(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var result [1]byte
	switch _, err := io.ReadFull(conn, result[:]); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("the program that connects has ended: %w: %w", err, errdefs.ErrUnavailable)
	}
	switch errno := unix.Errno(result[0]); errno {
	case 0:
		return nil
	case unix.ECONNREFUSED:
		return fmt.Errorf("nothing listens there on the pod's loopback: %w", errdefs.ErrFailedPrecondition)
	default:
		return fmt.Errorf("%w: %w", errno, errdefs.ErrFailedPrecondition)
	}
}

// dialLoopback connects to the node's loopback, for a pod on the host's network.
func dialLoopback(ctx context.Context, port uint16) (net.Conn, error) {
	var d net.Dialer
	var errs []error
	for _, ip := range []string{"127.0.0.1", "::1"} {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(ip, strconv.Itoa(int(port))))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("nothing listens there on the node's loopback: %w", errdefs.ErrFailedPrecondition)
	}
	return nil, err
}
