package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// nodeName is the kubelet's name for its node; static pods have it as a suffix.
const nodeName = "node"

// tunables are what a kubelet sets on its node, below /proc/sys.
const tunables = "vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes"

//go:embed cover.sh
var cover string

// kubelet is the kubelet's process and its directories.
type kubelet struct {
	env  *testenv.Env
	port int // of its API, on 127.0.0.1
	cmd  *exec.Cmd
	done chan struct{} // closed when the process was reaped
	err  error         // of Wait; read after done
}

func (k *kubelet) program() string   { return filepath.Join(k.env.Repo, "bin", "kubelet") }
func (k *kubelet) root() string      { return filepath.Join(k.env.Dir, "kubelet") }
func (k *kubelet) manifests() string { return filepath.Join(k.env.Dir, "manifests") }
func (k *kubelet) host() string      { return filepath.Join(k.env.Dir, "host") }
func (k *kubelet) log() string       { return filepath.Join(k.env.Dir, "kubelet.log") }

// newKubelet makes the directories, the mount that volumes are shared by, and the
// cgroup that all of the kubelet's are made in.
func newKubelet(env *testenv.Env) (*kubelet, error) {
	k := &kubelet{env: env}
	for _, dir := range []string{k.root(), k.manifests(), k.host()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make kubelet's directories: %w", err)
		}
	}
	if err := unix.Mount(k.root(), k.root(), "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mount kubelet's root: %w", err)
	}
	if err := unix.Mount("", k.root(), "", unix.MS_SHARED, ""); err != nil {
		return nil, fmt.Errorf("share kubelet's root: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody listens there now
	if err != nil {
		return nil, fmt.Errorf("find free port: %w", err)
	}
	k.port = l.Addr().(*net.TCPAddr).Port
	return k, errors.Join(l.Close(), env.MakeCgroups())
}

// config is a KubeletConfiguration. The upper part is what docs/kubernetes.md
// tells operators; the lower part keeps this kubelet to itself and makes it quick.
func (k *kubelet) config(more map[string]any) map[string]any {
	c := map[string]any{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"containerRuntimeEndpoint": k.env.Endpoint,
		"failCgroupV1":             false,
		"featureGates":             map[string]bool{"PodAndContainerStatsFromCRI": true},

		"staticPodPath": k.manifests(),
		"podLogsDir":    k.env.LogDir,
		"address":       "127.0.0.1",
		"port":          k.port,
		"healthzPort":   0,
		// The environment's cgroup in the kubelet's form, which knows of no suffix.
		"cgroupRoot":     "/" + k.env.Name,
		"authentication": map[string]any{"anonymous": map[string]any{"enabled": true}, "webhook": map[string]any{"enabled": false}},
		"authorization":  map[string]any{"mode": "AlwaysAllow"},

		"makeIPTablesUtilChains": false,
		"failSwapOn":             false,
		"volumePluginDir":        filepath.Join(k.env.Dir, "volume-plugins"),
		// The machine's disk may be as full as it likes.
		"evictionHard":                map[string]string{"memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
		"imageGCHighThresholdPercent": 100,

		"fileCheckFrequency":   "1s",
		"syncFrequency":        "5s",
		"volumeStatsAggPeriod": "5s",
		"crashLoopBackOff":     map[string]any{"maxContainerRestartPeriod": "2s"},
	}
	maps.Copy(c, more)
	return c
}

// start runs a kubelet with more in its configuration and waits until it serves.
// Whatever an earlier one has left in its directories is this one's.
func (k *kubelet) start(ctx context.Context, more map[string]any) error {
	if _, err := os.Stat(k.program()); err != nil {
		return fmt.Errorf("find program: %w (run `hack/setup.sh kubelet`)", err)
	}
	b, err := json.MarshalIndent(k.config(more), "", "  ")
	if err != nil {
		return fmt.Errorf("encode kubelet's configuration: %w", err)
	}
	config := filepath.Join(k.env.Dir, "kubelet.json")
	if err := os.WriteFile(config, b, 0o644); err != nil {
		return fmt.Errorf("write kubelet's configuration: %w", err)
	}
	if err := k.spawn(config); err != nil {
		return fmt.Errorf("start kubelet: %w", err)
	}
	err = poll(ctx, func() error {
		select {
		case <-k.done:
			return fatal{fmt.Errorf("it ended: %v", k.err)}
		default:
		}
		_, err := k.get(ctx, "/healthz", nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("start kubelet: %w", err)
	}
	return nil
}

func (k *kubelet) spawn(config string) error {
	log, err := os.OpenFile(k.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", "-c", cover, "kubelet", k.program(),
		"--config", config, "--root-dir", k.root(), "--cert-dir", filepath.Join(k.env.Dir, "pki"),
		"--hostname-override", nodeName, "--v", "2")
	cmd.Env = append(os.Environ(), "TUNABLES="+tunables)
	cmd.Stdout, cmd.Stderr = log, log
	// Not Unshareflags: with these Go makes every mount private, also those that
	// have to be shared.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return err
	}
	k.cmd, k.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		k.err = cmd.Wait()
		close(done)
	}(k.done)
	return nil
}

// stop ends the kubelet and waits until it is reaped. Pods run on.
func (k *kubelet) stop(ctx context.Context) error {
	if k.cmd == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	k.cmd.Process.Signal(syscall.SIGTERM)
	defer func() { k.cmd = nil }()
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		k.cmd.Process.Kill()
		<-k.done
		return errors.New("stop kubelet: it had to be killed")
	}
}

// logTail is the end of its log, for error messages: errors and events, without
// what its watch of other people's cgroups complains of.
func (k *kubelet) logTail(n int) string {
	b, err := os.ReadFile(k.log())
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "E") || strings.Contains(line, "Event occurred") && !strings.Contains(line, `kind="Node"`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// nodesOwn describes what cover.sh protects: whether there are the kubelet's directories on
// the node, links to logs of this kubelet's pods in them, and the values of the tunables.
func nodesOwn() string {
	out, _ := exec.Command("/bin/sh", "-c", `ls -d /var/lib/kubelet /var/log/containers /var/log/pods /var/log/*/*-`+nodeName+`_default_*
		for name in `+tunables+`; do echo "$name"; cat "/proc/sys/$name"; done`).CombinedOutput() // some are absent
	return string(out)
}
