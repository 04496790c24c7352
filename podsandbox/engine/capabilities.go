package engine

// Capabilities are what an engine can do on any node. What depends on the node as well,
// such as mapped mounts of a file system, is for the caller to try; a feature is there
// when both say so. What a single sandbox can do beside its core are its abilities; see
// Ability.
type Capabilities struct {
	// MemoryLimit: a container is held to the memory limit of its spec. Else the limit
	// is shown and not enforced, and the caller ends a container that exceeds it.
	MemoryLimit bool

	// OOMKills: the host's kernel tells which container it took memory from by killing
	// it. Else it tells of the sandbox as a whole.
	OOMKills bool

	// HostPID and HostIPC: a container may be in the host's PID or IPC namespace.
	HostPID bool
	HostIPC bool

	// HostDevices: a container may have device nodes that open devices of the host.
	HostDevices bool

	// BidirectionalMounts: mounts made in a container may be seen on the host.
	BidirectionalMounts bool

	// Checkpoint: a container can be written to files and go on from there, elsewhere.
	Checkpoint bool

	// UserNamespaces: a pod may have a user namespace of its own; see Config.IDs.
	UserNamespaces bool

	// RecursiveReadOnlyMounts: the option rro of a bind holds for what is mounted below
	// it, too.
	RecursiveReadOnlyMounts bool
}
