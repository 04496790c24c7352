// Package testenv sets up a complete node on one machine, for the demo, the
// benchmarks and the end-to-end tests: a daemon on directories of its own, an image
// registry on loopback, and a pod network with its own bridge and subnet.
//
// It owns all that it makes and removes it in Close, also after a failure half
// way and after a daemon that died. It does not own what a machine shares: the
// programs in bin/ (made by `make setup build`), net.ipv4.ip_forward, which the
// bridge plugin turns on, and the two chains that the portmap plugin keeps for
// all networks.
//
// Invariants: every name that the environment leaves on the machine (bridge,
// network, cgroup parent) is Env.Name, which is random, so that several
// environments live side by side and a leak is attributed to its maker. Nothing
// outside Env.Dir is written, but that bridge, its firewall rules and cgroups.
//
// Files, all below Env.Dir:
//
//	root/        the daemon's --root
//	run/         the daemon's --state, and its socket run/cri.sock
//	cni/conf/    the one network configuration
//	cni/leases/  host-local's addresses
//	certs.d/     --registry-config-dir, empty
//	logs/POD/    container logs
//	nri          --nri-socket, with Options.NRI
//	crictl.yaml  points crictl at this daemon
//	daemon.log   stdout and stderr of every daemon that ran here
//
// Env joins Layout (where things lie), Daemon (the process), Network (its CNI
// configuration) and a registry; what belongs to it on the machine is found, and
// taken away by force, by a footprint, of which the firewall is one part. Its methods
// may be called from several goroutines, but Start, Spawn, Stop, Kill and Close must
// not overlap.
package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

// Options changes what New sets up. The zero value is the normal case.
type Options struct {
	// Binary is the daemon's program; empty means bin/cri-sandbox of the repository.
	Binary string
	// Config is the text of the daemon's configuration; the machine's own is never read.
	Config string
	// DaemonArgs follow the flags that New passes to `serve`.
	DaemonArgs []string
	// DaemonEnv is added to the environment of the daemon, as NAME=value.
	DaemonEnv []string
	// NoImages leaves the registry empty.
	NoImages bool
	// NoStart sets everything up and leaves Start to the caller.
	NoStart bool
	// NoNetwork writes no network configuration; WriteNetwork does later.
	NoNetwork bool
	// NRI lets plugins in, at Env.NRISocket.
	NRI bool
	// DualStack gives pods an IPv6 address, too.
	DualStack bool
}

// Env is a node: a daemon, a network and a registry. Its exported fields are set by
// New and never change.
type Env struct {
	Layout
	*Daemon
	Network
	Registry string // host:port
	Images   map[string]string

	// Client is connected to Endpoint, and stays usable over restarts of the daemon.
	Client *Client

	made     *podIDs
	left     *footprint
	baseline Observation
	undo     cleanup.Cleanup
}

// New sets an environment up and, unless Options.NoStart says otherwise, starts
// the daemon and waits until it is ready. ctx bounds the set-up only. It needs
// root. On an error nothing is left.
func New(ctx context.Context, opts Options) (*Env, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("set up test environment: needs root")
	}
	repo, err := RepoRoot()
	if err != nil {
		return nil, err
	}
	if opts.Binary == "" {
		opts.Binary = filepath.Join(repo, "bin", "cri-sandbox")
	}
	e := &Env{Layout: newLayout(repo)}
	if !opts.NoStart {
		if err := checkPrograms(opts.Binary, e.CNIBinDir); err != nil {
			return nil, err
		}
	}
	if e.Network, err = newNetwork(e.Layout, opts.DualStack); err != nil {
		return nil, err
	}
	if e.made, err = newPodIDs(); err != nil {
		return nil, err
	}
	cu := cleanup.Make(e.made.close)
	defer cu.Clean()
	if e.Client, err = Dial(e.Endpoint); err != nil {
		return nil, err
	}
	cu.Add(func() { e.Client.Close() })
	e.Daemon = &Daemon{layout: e.Layout, opts: opts, client: e.Client, made: e.made}
	e.left = &footprint{
		layout: e.Layout, daemon: e.Daemon, client: e.Client,
		firewall: firewall{network: e.Network, made: e.made},
	}
	if err := e.makeDirs(opts.Config); err != nil {
		return nil, err
	}
	// Close is the undo of every later step: each of its parts accepts that its
	// thing was never made.
	cu.Add(func() { e.Close() })

	server, err := serveRegistry()
	if err != nil {
		return nil, err
	}
	e.undo.Add(func() { server.Close() })
	e.Registry = server.Addr
	if !opts.NoImages {
		if e.Images, err = testimages.Push(ctx, e.Registry); err != nil {
			return nil, fmt.Errorf("push test images to %s: %w", e.Registry, err)
		}
	}
	if !opts.NoNetwork {
		if err := e.WriteNetwork(); err != nil {
			return nil, err
		}
	}
	if !opts.NoStart {
		if _, err := e.Start(ctx); err != nil {
			return nil, err
		}
		if err := e.MarkBaseline(); err != nil {
			return nil, err
		}
	}
	cu.Release()
	return e, nil
}

// checkPrograms finds missing programs before anything is made.
func checkPrograms(daemon, cniDir string) error {
	for _, p := range []string{daemon, filepath.Join(cniDir, "bridge"), filepath.Join(cniDir, "host-local")} {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("find program: %w (run `make setup build`)", err)
		}
	}
	return nil
}

// String tells people where to look.
func (e *Env) String() string {
	return fmt.Sprintf("socket %s\nregistry %s, pods in %s on bridge %s", e.Endpoint, e.Registry, e.Subnet, e.Name)
}

// End is Close, and looks whether it has left anything. It says what it has looked for.
func (e *Env) End() (string, error) {
	if err := e.Close(); err != nil {
		return "", err
	}
	o, err := e.Observe()
	if err != nil {
		return "", err
	}
	if left := o.Since(Observation{}); len(left) > 0 {
		return "", fmt.Errorf("left behind: %s", strings.Join(left, ", "))
	}
	return o.String(), nil
}

// Close stops the daemon and removes all that the environment and its pods left
// on the machine. It goes on after a step that fails and returns all errors. A
// second call finds nothing to do.
func (e *Env) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	if e.Daemon.PID() != 0 {
		// Through the front door first, so that CNI DEL runs. What that
		// leaves is swept below.
		errs = append(errs, e.Client.RemoveAll(ctx))
	}
	errs = append(errs, e.Client.Close(), e.Stop(ctx), e.left.sweep())
	e.made.close()
	e.undo.Clean()
	errs = append(errs, os.RemoveAll(e.Dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close test environment %s: %w", e.Name, err)
	}
	return nil
}

// Crictl runs bin/crictl against this daemon and returns its combined output.
func (e *Env) Crictl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(e.Repo, "bin", "crictl"), append([]string{"--config", e.crictlConfig()}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run crictl %v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// RepoRoot returns the directory of the root module's go.mod, searched upwards from
// the working directory: a test runs in its package's directory, a command of the
// Makefile at the top.
func RepoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find repository: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if b, err := os.ReadFile(filepath.Join(d, "go.mod")); err == nil && isRootModule(b) {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("find repository: no go.mod of the root module above %s", dir)
		}
	}
}
