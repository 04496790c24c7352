package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/cri"
	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/audit"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor"
)

// handlers are the runtime handlers that the gVisor engine serves.
var handlers = []string{"", "gvisor"}

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon until SIGTERM; pods keep running",
		Args:  cobra.NoArgs,
	}
	load := daemonFlags(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return serve(cfg)
	}
	return cmd
}

// serve is the daemon's life: take the folders, build the parts from the bottom
// up, take over what runs, answer, and let go again.
func serve(cfg config) (err error) {
	setUpProcess(cfg.LogLevel)
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer cancel()
	dumpOnSignal(ctx)
	start := time.Now()

	for flag, dir := range map[string]string{"root": cfg.Root, "state": cfg.State} {
		lock, err := lockFolder(dir, flag)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	images, err := image.Open(ctx, image.Options{
		Root:                   filepath.Join(cfg.Root, "images"),
		RegistryConfigDir:      cfg.Registry.ConfigDir,
		MaxConcurrentDownloads: cfg.Registry.MaxConcurrentDownloads,
		PullIdleTimeout:        cfg.Timeouts.PullIdle.Duration,
		Limits:                 cfg.Images.limits(),
		Pinned:                 cfg.Images.PinnedImages,
	})
	if err != nil {
		return fmt.Errorf("open image store: %w", err)
	}
	defer func() { err = errors.Join(err, images.Close()) }()
	cni, err := network.NewCNI(network.Options{
		ConfDir: cfg.CNI.ConfDir, BinDirs: cfg.CNI.BinDirs, CacheDir: filepath.Join(cfg.Root, "cni"),
		ConfTemplate: cfg.CNI.ConfTemplate, Timeout: cfg.Timeouts.Network.Duration,
	})
	if err != nil {
		return fmt.Errorf("open network: %w", err)
	}
	defer cni.Close()
	engine, err := gvisor.New(gvisor.Options{
		StateDir: filepath.Join(cfg.State, "gvisor"), ProgramDir: filepath.Join(cfg.Root, "bin"),
		Debug: cfg.Debug.SandboxLog, Profile: cfg.Debug.Profile,
	})
	if err != nil {
		return fmt.Errorf("open gVisor engine: %w", err)
	}
	plugins, err := openPlugins(cfg.NRI)
	if err != nil {
		return err
	}
	pods, err := podsandbox.New(podsandbox.Options{
		Root: cfg.Root, State: cfg.State, Engine: engine, Images: images, CNI: cni,
		Handlers: handlers, SeccompRoot: cfg.Security.SeccompRoot, HostSockets: cfg.Security.HostSockets, PrivilegedInSandbox: cfg.Security.PrivilegedPods == privilegedSandbox,
		Devices: cdi.Devices{SpecDirs: cfg.CDI.SpecDirs}, Plugins: plugins, Layers: cfg.Containers.layers(),
		Timeouts: podsandbox.Timeouts{
			Network: cfg.Timeouts.Network.Duration, Sandbox: cfg.Timeouts.Sandbox.Duration,
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pods.Close()) }()
	if err := pods.Recover(ctx); err != nil {
		return fmt.Errorf("take over running pods: %w", err)
	}
	sweep(ctx, audit.Config{Root: cfg.Root, State: cfg.State, CNI: cni})
	if err := pods.StartPlugins(); err != nil {
		return err
	}
	defer plugins.Stop()
	return answer(ctx, cfg, start, cri.Options{
		Pods: pods, Images: images, Network: cni, Handlers: handlers, Features: handlerFeatures(filepath.Join(cfg.Root, "images")),
		Version: version, Systemd: usesSystemd(), Info: statusInfo(cfg),
		Streaming: cri.StreamingOptions{
			Address: cfg.Streaming.Address, Port: cfg.Streaming.Port,
			CertFile: cfg.Streaming.TLSCertFile, KeyFile: cfg.Streaming.TLSKeyFile,
			IdleTimeout: cfg.Streaming.IdleTimeout.Duration, CreationTimeout: cfg.Streaming.CreationTimeout.Duration,
		},
	})
}

// sweep removes what the records no longer lead to, such as a sandbox whose folder
// is gone, too. What it cannot remove does not keep the daemon from its pods.
func sweep(ctx context.Context, c audit.Config) {
	found, err := audit.Scan(c)
	if err != nil {
		klog.ErrorS(err, "Look for leftovers")
		return
	}
	for _, o := range audit.Repair(ctx, found) {
		if o.Err != nil {
			klog.ErrorS(o.Err, "Remove a leftover", "kind", o.Kind, "what", o.What)
			continue
		}
		klog.InfoS("Removed a leftover", "kind", o.Kind, "what", o.What)
	}
}

// answer serves CRI until ctx ends, then lets running requests end.
func answer(ctx context.Context, cfg config, start time.Time, opts cri.Options) error {
	l, err := cri.Listen(cfg.Listen, cfg.Group)
	if err != nil {
		return err
	}
	server, err := cri.New(opts)
	if err != nil {
		l.Close()
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	klog.InfoS("Ready", "listen", cfg.Listen, "version", version, "took", time.Since(start).Round(time.Millisecond))
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		klog.ErrorS(err, "Tell the service manager")
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	klog.InfoS("Stopping; pods keep running")
	server.Stop(cfg.Timeouts.Drain.Duration)
	return nil
}

// setUpProcess prepares what is global in a process.
func setUpProcess(level int) {
	// A closed log must not end the daemon.
	signal.Ignore(unix.SIGPIPE)
	// Folders and sockets get the modes that are asked for.
	unix.Umask(0o022)
	var verbosity klog.Level
	_ = verbosity.Set(strconv.Itoa(level)) // of the whole log; a number is always one
	if os.Geteuid() != 0 {
		klog.InfoS("Not root: sandboxes cannot be started")
	}
}

func usesSystemd() bool {
	_, systemd := cgroup.Mode()
	return systemd
}

// statusInfo is shown by a verbose Status.
func statusInfo(cfg config) map[string]string {
	cgroups, systemd := cgroup.Mode()
	info := map[string]string{}
	for name, value := range map[string]any{
		"config": cfg,
		"runtime": map[string]any{
			"version": version, "go": runtime.Version(), "pid": os.Getpid(), "started": time.Now().Format(time.RFC3339),
			"cgroupVersion": cgroups, "systemd": systemd,
		},
	} {
		data, err := json.Marshal(value)
		if err != nil {
			klog.ErrorS(err, "Encode the info of a verbose status", "name", name)
			continue
		}
		info[name] = string(data)
	}
	return info
}
