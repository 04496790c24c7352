package main

// debugConfig is about sandboxes that are booted from now on.
type debugConfig struct {
	SandboxLog bool `toml:"sandbox_log" comment:"Each sandbox writes a verbose log into its directory, which holds environments of containers"`
	Profile    bool `toml:"profile" comment:"Sandboxes can be profiled; their seccomp filters then allow what that takes"`
}
