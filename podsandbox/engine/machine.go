package engine

import (
	"context"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// Machine is what Prepare boots: a sandbox that belongs to no pod yet. What is left open
// here, or is other than what the pod is to have, Bind changes or refuses; see Prepared.
type Machine struct {
	// ID names the machine on the node, as Config.ID does a sandbox, and Dir is what
	// Config.Dir is. They may be the pod's already. Where the directory is another one
	// than the pod's, both lie in the same file system and where Find looks, and what the
	// sandbox has there goes with Bind; the caller removes it then.
	ID  string
	Dir string

	Hostname string

	// HostNetwork puts it on the host's network. Else NetNS is as in Config, or empty
	// for a network namespace in which there is nothing.
	HostNetwork bool
	NetNS       string

	IDs         idmap.Mapping
	CgroupPaths []string
	MemoryLimit int64
	CPUQuota    int64
	CPUPeriod   int64
	OOMScoreAdj *int
}

// Machine is the one that Bind has nothing to do for, when it becomes this pod's.
func (c Config) Machine() Machine {
	return Machine{
		ID: c.ID, Dir: c.Dir, Hostname: c.Hostname, HostNetwork: c.NetNS == "", NetNS: c.NetNS,
		IDs: c.IDs, CgroupPaths: c.CgroupPaths,
		MemoryLimit: c.MemoryLimit, CPUQuota: c.CPUQuota, CPUPeriod: c.CPUPeriod, OOMScoreAdj: c.OOMScoreAdj,
	}
}

// Prepared is a booted sandbox that belongs to no pod yet. It becomes one pod's, or is
// discarded. A daemon that was killed leaves it on the node, under the machine's id, for
// Reap and Find.
type Prepared interface {
	// Bind makes it this pod's, as if Boot had booted it: its id, directory, network
	// namespace, cgroups, host name and OOM score are the pod's from then on, its
	// process stays the same, and Adopt finds it.
	//
	// What a process is born with cannot be changed: the user namespace, whether it is
	// on the host's network, and the size of the machine that it shows. These have to be
	// the pod's already, and a pod without cgroups takes a machine without; else it is
	// FailedPrecondition, nothing has changed, and the caller boots another one. After
	// any other error the sandbox is gone.
	//
	// What stays of the time before: the process itself remains in the network
	// namespace that it was born in, though the sandbox has none of it; what memory it
	// has taken until then is charged where it was; and it calls itself by the
	// machine's id, so Reap finds it by the pod's only in a cgroup of the pod.
	Bind(ctx context.Context, cfg Config) (Sandbox, error)

	// Discard ends it and waits until it is reaped. One that is bound is not touched.
	Discard(ctx context.Context) error
}
