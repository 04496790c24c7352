// Package stream owns what passes between clients and containers: the standard streams
// and terminals of containers, their logs' beginning and end, commands that are run in
// them, attached clients, and forwarded ports. It knows pods and containers by package
// state, starts and ends none, and keeps nothing of its own.
//
// Errors are classified with github.com/containerd/errdefs; a client that goes away is
// its context's cause.
package stream

import (
	"time"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// Service serves the streams of one daemon's pods. Its methods are safe for concurrent
// use.
type Service struct {
	pods    *state.Registry
	work    *background.Group
	paths   layout.Paths
	timeout time.Duration // of one call to a sandbox
}

// New makes a service; work ends with the daemon.
func New(pods *state.Registry, work *background.Group, paths layout.Paths, timeout time.Duration) *Service {
	return &Service{pods: pods, work: work, paths: paths, timeout: timeout}
}
