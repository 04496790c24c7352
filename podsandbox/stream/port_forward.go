package stream

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// answerSilence is how long the pod may be silent once the client has sent all:
// nobody tells of a client that has gone, and many a server keeps a connection for
// as long as the other side does.
const answerSilence = time.Minute

// CheckForward says whether PortForward could begin now.
func (s *Service) CheckForward(podID string, ports []int32) error {
	p, err := s.pods.FindPod(podID)
	if err != nil {
		return err
	}
	for _, port := range ports {
		if err := checkPort(port); err != nil {
			return err
		}
	}
	if ph := p.Phase(); ph != lifecycle.Ready {
		return fmt.Errorf("pod %s is not ready (%s): %w", p.ID(), ph, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func checkPort(port int32) error {
	if port < 1 || port > math.MaxUint16 {
		return fmt.Errorf("port %d is not between 1 and %d: %w", port, math.MaxUint16, errdefs.ErrInvalidArgument)
	}
	return nil
}

// PortForward connects a client's stream with a TCP port on the pod's loopback
// interface, or the node's for a pod on the host's network. It returns when the
// pod has closed the connection or the client is done; an error means that there
// was no connection.
func (s *Service) PortForward(ctx context.Context, podID string, port int32, stream io.ReadWriter) error {
	p, err := s.pods.FindPod(podID)
	if err != nil {
		return err
	}
	if err := checkPort(port); err != nil {
		return err
	}
	conn, err := s.dialPort(ctx, p, uint16(port))
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	forward(conn, stream)
	return nil
}

func (s *Service) dialPort(ctx context.Context, p *state.Pod, port uint16) (net.Conn, error) {
	sandbox, done, err := p.BeginOperation()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	dialer, err := engine.Ability[engine.PortDialer](sandbox, "forward ports")
	if err != nil {
		return nil, err
	}
	return dialer.DialPort(ctx, port)
}

// forward copies both ways until the pod's way has ended. A way that breaks is the
// matter of one connection: clients take an error for the end of all of them.
func forward(conn net.Conn, stream io.ReadWriter) {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(conn, stream) // what fails here fails on the other way, too
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_ = drain(stream, conn, sent, answerSilence)
}
