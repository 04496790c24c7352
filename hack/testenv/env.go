// Package testenv sets up a complete node on one machine, for the demo, the
// benchmarks and the end-to-end tests: a daemon on folders of its own, an image
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
// Env's methods may be called from several goroutines, but Start, Stop, Kill and
// Close must not overlap.
package testenv

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
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

// Env is a node. Its exported fields are set by New and never change.
type Env struct {
	Name         string // unique on the machine, at most 15 characters
	Dir          string
	Root         string
	State        string
	LogDir       string
	NRISocket    string // of NRI plugins, with Options.NRI
	Socket       string // path of the CRI socket
	Endpoint     string // the same as unix:// URL
	CNIConfDir   string
	CNIBinDir    string
	LeaseDir     string
	CertsDir     string
	Subnet       netip.Prefix // IPv4 addresses of the pods
	Subnet6      netip.Prefix // valid with Options.DualStack
	CgroupParent string       // for PodSandboxConfig.linux.cgroup_parent
	Registry     string       // host:port
	Images       map[string]string
	Repo         string // root of the repository

	// Client is connected to Endpoint, and stays usable over restarts of the daemon.
	Client *Client

	opts      Options
	binary    string // of the next daemon, see Use
	binaryEnv []string
	daemon    *daemon
	baseline  Observation
	made      *podIDs
	undo      cleanup.Cleanup
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
	e := &Env{Repo: repo, CNIBinDir: filepath.Join(repo, "bin", "cni"), opts: opts}
	if !opts.NoStart {
		if err := e.checkPrograms(); err != nil {
			return nil, err
		}
	}
	if err := e.makeDirs(); err != nil {
		return nil, err
	}
	// Close is the undo of every later step: each of its parts accepts that its
	// thing was never made.
	cu := cleanup.Make(func() { e.Close() })
	defer cu.Clean()

	if e.made, err = newPodIDs(); err != nil {
		return nil, err
	}
	if err := e.startRegistry(); err != nil {
		return nil, err
	}
	if !opts.NoImages {
		if e.Images, err = testimages.Push(ctx, e.Registry); err != nil {
			return nil, fmt.Errorf("push test images to %s: %w", e.Registry, err)
		}
	}
	if err := e.chooseSubnets(); err != nil {
		return nil, err
	}
	if !opts.NoNetwork {
		if err := e.WriteNetwork(); err != nil {
			return nil, err
		}
	}
	if e.Client, err = Dial(e.Endpoint); err != nil {
		return nil, err
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
func (e *Env) checkPrograms() error {
	for _, p := range []string{e.opts.Binary, filepath.Join(e.CNIBinDir, "bridge"), filepath.Join(e.CNIBinDir, "host-local")} {
		if _, err := os.Stat(p); err != nil {
			return fmt.Errorf("find program: %w (run `make setup build`)", err)
		}
	}
	return nil
}

// makeDirs chooses the environment's name and makes its folders.
func (e *Env) makeDirs() error {
	var b [3]byte
	rand.Read(b[:])
	e.Name = "csb" + hex.EncodeToString(b[:])
	// The control socket of a sandbox lies several folders deep in the state
	// folder and a socket's path is limited to 107 bytes, so a long TMPDIR is
	// not obeyed.
	tmp := os.TempDir()
	if len(tmp) > len("/var/tmp") {
		tmp = "/tmp"
	}
	e.Dir = filepath.Join(tmp, e.Name)
	e.Root = filepath.Join(e.Dir, "root")
	e.State = filepath.Join(e.Dir, "run")
	e.LogDir = filepath.Join(e.Dir, "logs")
	e.Socket = filepath.Join(e.State, "cri.sock")
	e.Endpoint = "unix://" + e.Socket
	e.NRISocket = filepath.Join(e.Dir, "nri") // short, see hack/containerd
	e.CNIConfDir = filepath.Join(e.Dir, "cni", "conf")
	e.LeaseDir = filepath.Join(e.Dir, "cni", "leases")
	e.CertsDir = filepath.Join(e.Dir, "certs.d")
	e.CgroupParent = "/" + e.Name
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		e.CgroupParent = e.Name + ".slice"
	}
	if err := os.Mkdir(e.Dir, 0o755); err != nil {
		return fmt.Errorf("make test environment: %w", err)
	}
	for _, d := range []string{e.Root, e.State, e.LogDir, e.CNIConfDir, e.LeaseDir, e.CertsDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			os.RemoveAll(e.Dir)
			return fmt.Errorf("make test environment: %w", err)
		}
	}
	// Without files of their own crictl and the daemon read the machine's.
	yaml := fmt.Sprintf("runtime-endpoint: %s\nimage-endpoint: %s\ntimeout: 60\n", e.Endpoint, e.Endpoint)
	for path, text := range map[string]string{e.crictlConfig(): yaml, e.configFile(): e.opts.Config} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			os.RemoveAll(e.Dir)
			return fmt.Errorf("make test environment: %w", err)
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
	if e.Client != nil {
		if e.daemon != nil && e.daemon.alive() {
			// Through the front door first, so that CNI DEL runs. What that
			// leaves is swept below.
			if err := e.Client.RemoveAll(ctx); err != nil {
				errs = append(errs, err)
			}
		}
		errs = append(errs, e.Client.Close())
	}
	errs = append(errs, e.Stop(ctx), e.sweep())
	if e.made != nil {
		e.made.close()
	}
	e.undo.Clean()
	errs = append(errs, os.RemoveAll(e.Dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close test environment %s: %w", e.Name, err)
	}
	return nil
}

// RepoRoot returns the folder of the root module's go.mod, searched upwards from
// the working directory: a test runs in its package's folder, a command of the
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
