package main

import (
	"github.com/spf13/cobra"
)

// daemonFlags gives a command the daemon's flags. What it returns reads the
// configuration in force, checked, once the flags are parsed.
func daemonFlags(cmd *cobra.Command) func() (config, error) {
	var (
		path  string
		flags = defaultConfig()
	)
	f := cmd.Flags()
	f.StringVar(&path, "config", defaultConfigPath, "configuration file")
	f.StringVar(&flags.Listen, "listen", flags.Listen, "CRI socket")
	f.StringVar(&flags.Root, "root", flags.Root, "directory of what outlives a reboot")
	f.StringVar(&flags.State, "state", flags.State, "directory of what does not")
	f.StringVar(&flags.CNI.ConfDir, "cni-conf-dir", flags.CNI.ConfDir, "directory of CNI configurations")
	f.StringSliceVar(&flags.CNI.BinDirs, "cni-bin-dir", flags.CNI.BinDirs, "directory of CNI plugins; may be repeated")
	f.StringVar(&flags.Registry.ConfigDir, "registry-config-dir", flags.Registry.ConfigDir, "directory of registry settings (hosts.toml)")
	f.StringVar(&flags.NRI.Socket, "nri-socket", flags.NRI.Socket, "let NRI plugins in, on this socket")
	f.IntVar(&flags.LogLevel, "log-level", flags.LogLevel, "verbosity of the log")
	return func() (config, error) {
		cfg, err := loadConfig(path)
		if err != nil {
			return cfg, err
		}
		override(cmd, &cfg, flags)
		return cfg, cfg.validate()
	}
}

// override lets the flags that were given win over the file.
func override(cmd *cobra.Command, cfg *config, flags config) {
	for name, set := range map[string]func(){
		"listen":              func() { cfg.Listen = flags.Listen },
		"root":                func() { cfg.Root = flags.Root },
		"state":               func() { cfg.State = flags.State },
		"cni-conf-dir":        func() { cfg.CNI.ConfDir = flags.CNI.ConfDir },
		"cni-bin-dir":         func() { cfg.CNI.BinDirs = flags.CNI.BinDirs },
		"registry-config-dir": func() { cfg.Registry.ConfigDir = flags.Registry.ConfigDir },
		"nri-socket":          func() { cfg.NRI.Enable, cfg.NRI.Socket = true, flags.NRI.Socket },
		"log-level":           func() { cfg.LogLevel = flags.LogLevel },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
}
