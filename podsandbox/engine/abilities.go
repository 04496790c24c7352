package engine

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/containerd/errdefs"
)

// What follows are abilities: a sandbox has those that its type has the methods of, and
// its caller does without the others. Their errors are classified as those of Sandbox.

// Holder is a sandbox that keeps files open for who comes after the daemon, such as a
// terminal's master side; see Container.Hold. Of a sandbox without it, no container has
// such files.
type Holder interface {
	// Held returns a file that Start was asked to hold, as another descriptor of
	// the same open file; the caller closes it. What is not held is NotFound.
	Held(id, name string) (*os.File, error)

	// Release lets go of a held file. One that is not held is no error.
	Release(id, name string) error
}

// PortDialer is a sandbox whose loopback interface is not the network namespace's: it
// answers for the pod's addresses itself.
type PortDialer interface {
	// DialPort connects to a TCP port of the pod's own loopback interface, on
	// 127.0.0.1 or else on ::1. A port that nobody listens on is
	// FailedPrecondition. The connection has the method CloseWrite.
	DialPort(ctx context.Context, port uint16) (net.Conn, error)
}

// TerminalSignaler is a sandbox whose processes do not get the signals of a terminal of
// the host: of a key such as Ctrl-C, and of a change of its size. Without it, the host's
// kernel sends them.
type TerminalSignaler interface {
	// SignalForeground sends to the foreground process group of the container's
	// terminal. Without a terminal it is FailedPrecondition.
	SignalForeground(ctx context.Context, id string, sig int) error
}

// Counter is a sandbox that counts what the host's kernel does not see.
type Counter interface {
	// Inodes counts what each of these containers has in the layer of its root file
	// system; see Writes. Without such a layer the number means nothing. A container
	// that is not running is absent.
	Inodes(ctx context.Context, ids []string) (map[string]uint64, error)

	// Descriptors counts what the processes of each of these containers have open. A
	// container that is not running is absent, and so may be one with thousands of
	// processes.
	Descriptors(ctx context.Context, ids []string) (map[string]Descriptors, error)
}

// Descriptors is how many file descriptors a container's processes have, sockets
// among them. What processes share is counted for each.
type Descriptors struct{ Open, Sockets uint64 }

// OOMScorer is a sandbox that the host's kernel ends as a whole when it is out of
// memory.
type OOMScorer interface {
	// SetOOMScoreAdj says how readily the host's kernel takes the sandbox when it
	// is out of memory: proc(5), oom_score_adj. A score that the daemon may not
	// set is raised to the lowest that it may.
	SetOOMScoreAdj(score int) error
}

// Ability returns a sandbox as T, one of the abilities. A sandbox without it is
// errdefs.ErrNotImplemented, with what was to be done, such as "forward ports".
func Ability[T any](sb Sandbox, what string) (T, error) {
	able, ok := sb.(T)
	if !ok {
		return able, fmt.Errorf("sandboxes of the pod's runtime handler cannot %s: %w", what, errdefs.ErrNotImplemented)
	}
	return able, nil
}
