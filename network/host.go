package network

import (
	"context"
	"time"
)

// Host is the network of pods that share the node's. There is nothing to attach,
// and such a pod has no address of its own: the kubelet reports the node's.
type Host struct{}

var _ Network = Host{}

// Ready implements Network.
func (Host) Ready(context.Context) error { return nil }

// Attach implements Network.
func (Host) Attach(context.Context, Pod) (Result, error) { return Result{}, nil }

// Detach implements Network.
func (Host) Detach(context.Context, Pod) error { return nil }

// GC implements Network.
func (Host) GC(context.Context, func() []Pod) error { return nil }

// Timeout implements Network: nothing is waited for.
func (Host) Timeout() time.Duration { return 0 }
