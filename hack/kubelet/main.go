// Command kubelet runs the real kubelet against the daemon: no API server, pods
// from a directory of manifests, and a walk through what a node's life brings, step
// by step with the time each took. It ends with a look for anything that is left
// over, and exits 1 when there is, or when a step fails. It is for what only a kubelet
// can show: what a runtime answers is looked at closer in test/e2e.
//
// The program bin/kubelet is built by `hack/setup.sh kubelet` from the module in
// hack/tools/kubelet.
//
// What is made belongs to hack/testenv's environment. A kubelet also has places on
// the node that no flag moves: /var/lib/kubelet/device-plugins, /var/log/containers,
// and some of /proc/sys. It runs in a mount namespace where these are its own
// (cover.sh), so a machine that is a node already is not disturbed. Cgroups are
// made below the environment's, by the kubelet's cgroupRoot. It keeps its hands off
// iptables by its configuration.
//
// Files, below Env.Dir: kubelet/ its root directory, manifests/ the static pods,
// host/ for hostPath volumes, pki/, kubelet.json its configuration, kubelet.log.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/steps"
)

func main() {
	steps.Main("kubelet", 30*time.Minute, func(ctx context.Context) (err error) {
		w := &walk{}
		defer func() { err = errors.Join(err, w.close(err != nil)) }()
		return steps.Run(ctx, w.steps())
	})
}
