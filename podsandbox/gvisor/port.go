package gvisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
)

// DialPort implements engine.Sandbox.
func (s *Sandbox) DialPort(ctx context.Context, port uint16) (net.Conn, error) {
	dial := s.dialInside
	if s.hostNetwork() {
		dial = dialLoopback
	}
	conn, err := dial(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("connect to port %d of sandbox %s: %w", port, s.cfg.ID, err)
	}
	return conn, nil
}

// dialInside lets the sandbox connect to 127.0.0.1 in its own network stack and
// copy between that connection and a socket. The copying ends in both directions
// with the end of either, so the connection has no CloseWrite.
func (s *Sandbox) dialInside(ctx context.Context, port uint16) (net.Conn, error) {
	ours, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	defer ours.Close() // net.FileConn makes a copy
	err = s.control.call(ctx, methodForward, forwardArgs{ContainerID: s.cfg.ID, Port: port}, nil, theirs)
	theirs.Close()
	var remote *remoteError
	if errors.As(err, &remote) && strings.Contains(remote.message, "refused") {
		return nil, fmt.Errorf("nothing listens on 127.0.0.1:%d in the pod: %w", port, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, s.explain(err)
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return oneEnd{conn}, nil
}

// oneEnd hides the methods of a Unix socket that end one direction.
type oneEnd struct{ net.Conn }

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
		return nil, fmt.Errorf("nothing listens on port %d of the node's loopback: %w", port, errdefs.ErrFailedPrecondition)
	}
	return nil, err
}
