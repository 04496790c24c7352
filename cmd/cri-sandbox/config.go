package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
)

const defaultConfigPath = "/etc/cri-sandbox/config.toml"

// config is the daemon's configuration. The file is read first, then the
// drop-ins in the directory config.d beside it in lexical order, then the flags;
// what comes later wins. An unknown key is an error that names its line.
type config struct {
	Listen   string         `toml:"listen" comment:"Socket for CRI"`
	Group    string         `toml:"listen_group" comment:"Group that may use the socket, by name or number, and so is root on this node; empty for root alone"`
	Root     string         `toml:"root" comment:"What must outlive a reboot: images, and the records of pods"`
	State    string         `toml:"state" comment:"What need not: namespaces, sockets, FIFOs"`
	LogLevel int            `toml:"log_level" comment:"Verbosity of the daemon's log: 0 errors and changes, 2 requests, 4 everything"`
	CNI      cniConfig      `toml:"cni"`
	Registry registryConfig `toml:"registry"`
	Timeouts timeoutsConfig `toml:"timeouts"`
	Security securityConfig `toml:"security"`
	CDI      cdiConfig      `toml:"cdi"`
	NRI      nriConfig      `toml:"nri" comment:"Programs of the node that are told of pods and containers and may adjust these (Node Resource Interface)"`
	Images   imagesConfig   `toml:"images"`

	Containers containersConfig `toml:"containers"`

	Debug debugConfig `toml:"debug" comment:"Looking into sandboxes; see cri-sandbox debug"`

	Streaming streamingConfig `toml:"streaming" comment:"Where exec, attach and port-forward are served; the kubelet connects to it on this node"`
}

type cniConfig struct {
	ConfDir      string   `toml:"conf_dir" comment:"Directory of network configurations; the first one in lexical order is used"`
	BinDirs      []string `toml:"bin_dirs" comment:"Directories of CNI plugins"`
	ConfTemplate string   `toml:"conf_template" comment:"Template of a network configuration, in containerd's form, filled with the pod addresses that the kubelet tells; empty for none"`
}

type registryConfig struct {
	ConfigDir              string `toml:"config_dir" comment:"Directory of registry settings, REGISTRY/hosts.toml"`
	MaxConcurrentDownloads int    `toml:"max_concurrent_downloads" comment:"Layers of an image fetched at once"`
}

type timeoutsConfig struct {
	Network  duration `toml:"network" comment:"One CNI ADD or DEL"`
	Sandbox  duration `toml:"sandbox" comment:"Boot of a sandbox, or one call to it"`
	PullIdle duration `toml:"pull_idle" comment:"A pull without progress for so long has failed"`
	Drain    duration `toml:"drain" comment:"How long running requests may go on when the daemon stops"`
}

type securityConfig struct {
	SeccompRoot    string   `toml:"seccomp_root" comment:"Directory of localhost seccomp profiles"`
	PrivilegedPods string   `toml:"privileged_pods" comment:"refuse, since they want the host; or sandbox: privileged inside their sandbox, with nothing of the host"`
	HostSockets    []string `toml:"host_sockets" comment:"Paths of the node: a container that mounts one, or a part of it, may connect to the Unix sockets in its mounts"`
}

type cdiConfig struct {
	SpecDirs []string `toml:"spec_dirs" comment:"Directories of device specifications; the last one that has a device wins"`
}

// What becomes of privileged pods.
const (
	privilegedRefuse  = "refuse"
	privilegedSandbox = "sandbox"
)

type streamingConfig struct {
	Address         string   `toml:"address" comment:"IP address to listen on. Whoever gets hold of a URL's token can use it: keep it on loopback"`
	Port            int      `toml:"port" comment:"0 is any free port"`
	TLSCertFile     string   `toml:"tls_cert_file" comment:"PEM files; with both, TLS is spoken"`
	TLSKeyFile      string   `toml:"tls_key_file"`
	IdleTimeout     duration `toml:"idle_timeout" comment:"A connection without traffic for so long is closed"`
	CreationTimeout duration `toml:"creation_timeout" comment:"How long a client may take to open the streams it asked for"`
}

// duration is a time.Duration that reads and writes as "30s". It is no number, so
// that none is taken for nanoseconds.
type duration struct{ time.Duration }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	if v <= 0 {
		return fmt.Errorf("duration %q is not positive", text)
	}
	d.Duration = v
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func defaultConfig() config {
	return config{
		Listen: "unix:///run/cri-sandbox/cri-sandbox.sock",
		Root:   "/var/lib/cri-sandbox",
		State:  "/run/cri-sandbox",
		CNI:    cniConfig{ConfDir: "/etc/cni/net.d", BinDirs: []string{"/opt/cni/bin"}},
		Registry: registryConfig{
			ConfigDir: "/etc/cri-sandbox/certs.d", MaxConcurrentDownloads: 3,
		},
		Timeouts: timeoutsConfig{
			Network: duration{60 * time.Second}, Sandbox: duration{30 * time.Second},
			PullIdle: duration{time.Minute}, Drain: duration{10 * time.Second},
		},
		CDI:      cdiConfig{SpecDirs: cdi.DefaultSpecDirs()},
		Security: securityConfig{SeccompRoot: "/var/lib/kubelet/seccomp", PrivilegedPods: privilegedRefuse, HostSockets: []string{}},
		NRI:      defaultNRIConfig(),
		Images:   defaultImagesConfig(),

		Containers: defaultContainersConfig(),
		Streaming: streamingConfig{
			Address: "127.0.0.1", IdleTimeout: duration{4 * time.Hour}, CreationTimeout: duration{30 * time.Second},
		},
	}
}

// loadConfig reads path and its drop-ins over the defaults. The default path
// need not exist.
func loadConfig(path string) (config, error) {
	cfg := defaultConfig()
	err := mergeConfig(&cfg, path)
	if errors.Is(err, fs.ErrNotExist) && path == defaultConfigPath {
		err = nil
	}
	if err != nil {
		return cfg, err
	}
	dropIns, err := filepath.Glob(filepath.Join(filepath.Dir(path), "config.d", "*.toml"))
	if err != nil {
		return cfg, fmt.Errorf("list drop-ins: %w", err)
	}
	sort.Strings(dropIns)
	for _, p := range dropIns {
		if err := mergeConfig(&cfg, p); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

func mergeConfig(cfg *config, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	defer f.Close()
	err = toml.NewDecoder(f).DisallowUnknownFields().Decode(cfg)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var where []string
		for _, e := range unknown.Errors {
			row, _ := e.Position()
			where = append(where, fmt.Sprintf("line %d: unknown key %q", row, strings.Join(e.Key(), ".")))
		}
		return fmt.Errorf("config %s: %s", path, strings.Join(where, "; "))
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		row, _ := bad.Position()
		return fmt.Errorf("config %s: line %d: %w", path, row, err)
	}
	if err != nil {
		return fmt.Errorf("config %s: %w", path, err)
	}
	return nil
}

// validate finds what cannot work before anything is started.
func (c config) validate() error {
	for name, path := range map[string]string{"root": c.Root, "state": c.State} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("config: %s %q is not an absolute path", name, path)
		}
	}
	if c.Root == c.State {
		return fmt.Errorf("config: root and state are the same directory %q", c.Root)
	}
	if path, ok := strings.CutPrefix(c.Listen, "unix://"); !ok || !filepath.IsAbs(path) {
		return fmt.Errorf("config: listen %q is not of the form unix:///path", c.Listen)
	}
	if len(c.CNI.BinDirs) == 0 || c.CNI.ConfDir == "" {
		return errors.New("config: cni needs conf_dir and bin_dirs")
	}
	if c.CNI.ConfTemplate != "" && !filepath.IsAbs(c.CNI.ConfTemplate) {
		return fmt.Errorf("config: cni.conf_template %q is not an absolute path", c.CNI.ConfTemplate)
	}
	if c.Registry.MaxConcurrentDownloads < 1 {
		return fmt.Errorf("config: registry.max_concurrent_downloads is %d, at least 1 is needed", c.Registry.MaxConcurrentDownloads)
	}
	for _, dir := range c.CDI.SpecDirs {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("config: cdi.spec_dirs %q is not an absolute path", dir)
		}
	}
	for _, path := range c.Security.HostSockets {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("config: security.host_sockets %q is not an absolute path", path)
		}
	}
	if !slices.Contains([]string{privilegedRefuse, privilegedSandbox}, c.Security.PrivilegedPods) {
		return fmt.Errorf("config: security.privileged_pods %q is neither %s nor %s", c.Security.PrivilegedPods, privilegedRefuse, privilegedSandbox)
	}
	return errors.Join(c.NRI.validate(), c.Images.validate(), c.Containers.validate(), c.Streaming.validate())
}

func (c streamingConfig) validate() error {
	switch {
	case net.ParseIP(c.Address) == nil:
		return fmt.Errorf("config: streaming.address %q is not an IP address", c.Address)
	case c.Port < 0 || c.Port > 65535:
		return fmt.Errorf("config: streaming.port %d is not between 0 and 65535", c.Port)
	case (c.TLSCertFile == "") != (c.TLSKeyFile == ""):
		return errors.New("config: streaming needs both tls_cert_file and tls_key_file, or neither")
	}
	return nil
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show or check the configuration"}
	var path string
	cmd.PersistentFlags().StringVar(&path, "config", defaultConfigPath, "configuration file")
	show := func(cmd *cobra.Command, cfg config) error {
		enc := toml.NewEncoder(cmd.OutOrStdout())
		return enc.Encode(cfg)
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "default", Short: "Print the default configuration", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return show(cmd, defaultConfig()) },
		},
		&cobra.Command{
			Use: "dump", Short: "Print the configuration as it is in force, with drop-ins", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := loadConfig(path)
				if err != nil {
					return err
				}
				return show(cmd, cfg)
			},
		},
		&cobra.Command{
			Use: "validate", Short: "Check the configuration; exit 0 when it is good", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				cfg, err := loadConfig(path)
				if err != nil {
					return err
				}
				return cfg.validate()
			},
		},
	)
	return cmd
}

// paths are where the daemon's pods lie.
func (c config) paths() layout.Paths {
	return layout.Paths{Root: filepath.Clean(c.Root), State: filepath.Clean(c.State)}
}
