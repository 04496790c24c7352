// Command kubelet runs the real kubelet against the daemon: no API server, pods
// from a folder of manifests, and a walk through what a node's life brings, step
// by step with the time each took. It ends with a look for anything that is left
// over, and exits 1 when there is, or when a step fails.
//
// The program bin/kubelet is built by `hack/setup.sh kubelet` from the module in
// hack/tools/kubelet.
//
// What is made belongs to hack/testenv's environment. A kubelet also has places on
// the node that no flag moves: /var/lib/kubelet/device-plugins, /var/log/containers,
// and some of /proc/sys. It runs in a mount namespace where these are its own
// (private.go), so a machine that is a node already is not disturbed. Cgroups are
// made below the environment's, by the kubelet's cgroupRoot. It keeps its hands off
// iptables by its configuration.
//
// Files, below Env.Dir: kubelet/ its root folder, manifests/ the static pods,
// host/ for hostPath volumes, pki/, kubelet.json its configuration, kubelet.log.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/steps"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == privateVerb {
		fmt.Fprintf(os.Stderr, "kubelet: %v\n", execPrivate(os.Args[2], os.Args[3:]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A hung step must end in the clean-up, not in a hung terminal.
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\nkubelet: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	w := &walk{}
	defer func() { err = errors.Join(err, w.close(err != nil)) }()
	return steps.Run(ctx, w.steps())
}
