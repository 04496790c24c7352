package main

import (
	"fmt"
	"path/filepath"

	"github.com/cri-sandbox/cri-sandbox/cri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
)

type nriConfig struct {
	Enable              bool     `toml:"enable" comment:"Off: no plugin is let in; the flag --nri-socket turns it on"`
	Socket              string   `toml:"socket" comment:"Where plugins connect; root only"`
	PluginDir           string   `toml:"plugin_dir" comment:"Directory of plugins that are started with the daemon, named NN-NAME"`
	ConfigDir           string   `toml:"config_dir" comment:"Directory of their configurations, NN-NAME.conf or NAME.conf"`
	RegistrationTimeout duration `toml:"registration_timeout" comment:"How long a plugin may take to register"`
	RequestTimeout      duration `toml:"request_timeout" comment:"How long a plugin may take for a request; one that takes longer is disconnected"`
}

func defaultNRIConfig() nriConfig {
	return nriConfig{
		Socket: nri.DefaultSocket, PluginDir: nri.DefaultPluginDir, ConfigDir: nri.DefaultConfigDir,
		RegistrationTimeout: duration{nri.DefaultRegistrationTimeout}, RequestTimeout: duration{nri.DefaultRequestTimeout},
	}
}

func (c nriConfig) validate() error {
	for name, path := range map[string]string{"socket": c.Socket, "plugin_dir": c.PluginDir, "config_dir": c.ConfigDir} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("config: nri.%s %q is not an absolute path", name, path)
		}
	}
	return nil
}

// openPlugins is nil when plugins are off.
func openPlugins(cfg nriConfig) (*nri.Plugins, error) {
	if !cfg.Enable {
		return nil, nil
	}
	return nri.New(nri.Options{
		Version: version, Socket: cfg.Socket, PluginDir: cfg.PluginDir, ConfigDir: cfg.ConfigDir,
		RegistrationTimeout: cfg.RegistrationTimeout.Duration, RequestTimeout: cfg.RequestTimeout.Duration,
		Status: cri.ToStatus,
	})
}
