package network

import (
	"context"
	"time"
)

// DefaultInterface is the pod's interface to its network, by the name that the
// kubelet and the tools expect.
const DefaultInterface = "eth0"

// Network attaches pods to a network. It is implemented by [CNI], and by [Host]
// for pods that share the node's network.
//
// Errors are classified with github.com/containerd/errdefs: InvalidArgument and
// FailedPrecondition (the caller's input), Unavailable (no network is configured,
// or a plugin says to try later), Internal (a plugin failed); and by
// context.DeadlineExceeded and context.Canceled.
type Network interface {
	// Ready returns nil when pods can be attached, else one sentence that says
	// what is missing.
	Ready(ctx context.Context) error

	// Timeout is the longest that Attach, Detach or GC takes, whatever its context
	// allows; 0 means no time at all.
	Timeout() time.Duration

	// Attach connects the namespace at pod.NetNS. After an error nothing of it
	// is left, or it is on record for GC. A pod that is on record as attached is
	// detached first, so an Attach that was cut off may simply be repeated.
	Attach(ctx context.Context, pod Pod) (Result, error)

	// Detach undoes Attach. The namespace and the configuration may be gone. A
	// pod that is not attached is no error. The record says what is to be undone;
	// but for the ID, the pod counts only where the record is damaged.
	Detach(ctx context.Context, pod Pod) error

	// GC detaches all pods that are neither valid nor attached by this process. It
	// runs in the background: an Attach does not wait for it but ends it, and then
	// it returns errdefs.ErrUnavailable, as it does while another GC runs: the
	// caller tries again later. valid is called when no pod can be attached
	// meanwhile, more than once, and must not wait for an Attach; the pods need
	// their IDs only. GC goes on after errors and returns them joined.
	GC(ctx context.Context, valid func() []Pod) error
}

// Pod is what the network needs to know of a pod. It is only read.
type Pod struct {
	ID        string // sandbox id; names files and is CNI's container id
	Namespace string
	Name      string
	UID       string

	NetNS      string // path of the pinned network namespace
	CgroupPath string // the pod's cgroup, for plugins that filter by it

	PortMappings []PortMapping
	DNS          DNSConfig

	// Bits per second, as [ParseBandwidth] returns them; 0 means no limit.
	IngressBandwidth int64
	EgressBandwidth  int64

	Annotations map[string]string
}

// PortMapping is a port of the node that leads to one of the pod.
type PortMapping struct {
	Protocol      string // tcp, udp or sctp, in any case
	ContainerPort int32
	HostPort      int32  // 0 means that nothing is to be mapped
	HostIP        string // empty means all addresses of the node
}

// DNSConfig is the pod's resolver, for plugins that serve or filter DNS.
type DNSConfig struct {
	Servers  []string
	Searches []string
	Options  []string
}

// Result is what Attach found out. It belongs to the caller.
type Result struct {
	IPs []string // the primary first, then the other families'
}
