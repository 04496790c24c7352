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
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/leftovers"
)

// finders find the processes of all engines that this daemon has, without one.
var finders = []engine.Finder{gvisor.Finder{}}

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

// serve is the daemon's life: take the directories, build the parts from the bottom
// up, take over what runs, answer, and let go again.
func serve(cfg config) (err error) {
	setUpProcess(cfg.LogLevel)
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer cancel()
	dumpOnSignal(ctx)
	start := time.Now()

	for flag, dir := range map[string]string{"root": cfg.Root, "state": cfg.State} {
		lock, err := lockDirectory(dir, flag)
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
	closeImages := images.Close
	defer func() { err = errors.Join(err, closeImages()) }()
	cni, err := network.NewCNI(network.Options{
		ConfDir: cfg.CNI.ConfDir, BinDirs: cfg.CNI.BinDirs, CacheDir: filepath.Join(cfg.Root, "cni"),
		ConfTemplate: cfg.CNI.ConfTemplate, Timeout: cfg.Timeouts.Network.Duration,
	})
	if err != nil {
		return fmt.Errorf("open network: %w", err)
	}
	defer cni.Close()
	gvisorEngine, err := gvisor.New(gvisor.Options{
		StateDir: filepath.Join(cfg.State, "gvisor"), ProgramDir: filepath.Join(cfg.Root, "bin"),
		Debug: cfg.Debug.SandboxLog, Profile: cfg.Debug.Profile, PrivilegedInSandbox: cfg.Security.PrivilegedPods == privilegedSandbox,
	})
	if err != nil {
		return fmt.Errorf("open gVisor engine: %w", err)
	}
	plugins, err := openPlugins(cfg.NRI)
	if err != nil {
		return err
	}
	handlers := engine.Handlers{"": gvisorEngine, "gvisor": gvisorEngine}
	files := cfg.Containers.files()
	files.HostSockets = cfg.Security.HostSockets
	pods, err := podsandbox.New(podsandbox.Options{
		Paths: cfg.paths(), Engines: handlers, Images: images, CNI: cni,
		SeccompRoot: cfg.Security.SeccompRoot,
		Devices:     cdi.Devices{SpecDirs: cfg.CDI.SpecDirs}, Plugins: plugins, Files: files,
		RemoveLeftovers: func(ctx context.Context) error {
			return leftovers.Sweep(ctx, leftovers.Config{
				Paths: cfg.paths(), CNI: cni, Engines: finders,
				RemoveLayer: func(ctx context.Context, key string) error { return images.UnmountRootfs(ctx, key, "") },
			})
		},
		SandboxTimeout: cfg.Timeouts.Sandbox.Duration,
	})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := pods.Close(); cerr != nil {
			err = errors.Join(err, cerr)
			closeImages = func() error { return nil } // what still works on them ends with the process
		}
	}()
	if err := pods.Recover(ctx); err != nil {
		return fmt.Errorf("take over running pods: %w", err)
	}
	if err := pods.StartPlugins(); err != nil {
		return err
	}
	defer plugins.Stop()
	return answer(ctx, cfg, start, cri.Options{
		Pods: pods, Images: images, Network: cni, Features: handlerFeatures(handlers, filepath.Join(cfg.Root, "images")),
		Version: version, Systemd: usesSystemd(), Info: statusInfo(cfg),
		Streaming: cri.StreamingOptions{
			Address: cfg.Streaming.Address, Port: cfg.Streaming.Port,
			CertFile: cfg.Streaming.TLSCertFile, KeyFile: cfg.Streaming.TLSKeyFile,
			IdleTimeout: cfg.Streaming.IdleTimeout.Duration, CreationTimeout: cfg.Streaming.CreationTimeout.Duration,
		},
	})
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
		klog.ErrorS(err, "Failed to tell the service manager that the daemon is ready")
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
	// Directories and sockets get the modes that are asked for.
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
			klog.ErrorS(err, "Failed to encode the info of a verbose status", "name", name)
			continue
		}
		info[name] = string(data)
	}
	return info
}
