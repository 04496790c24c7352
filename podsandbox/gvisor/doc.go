// Package gvisor is the sandbox engine on gVisor: it starts and adopts sandbox
// processes (gVisor's Sentry) and their gofers, and speaks to their control
// sockets. It implements the contract of package podsandbox/engine.
//
// It owns the processes of a sandbox, what they are born with, what gVisor cannot give
// and is refused (validate*.go), and the rewriting of an OCI spec into what the Sentry
// obeys. It does not own records, root file
// systems, network namespaces, cgroups, or the reading of a container's output.
// Nothing of the Sentry is linked: the program that is started is built from the
// nested module podsandbox/sentry, embedded, and staged under a name with its
// hash. The arguments of its control calls are JSON structs of this package, held
// to gVisor's types by golden files (testdata/contract) and a test of the nested
// module.
//
// Invariants:
//
//   - A process is signalled through its pidfd only, and waited for by its own
//     pid only. Processes of an earlier daemon are not children; they are
//     recognized by pid, start time and program, or else by their cgroup, and only
//     outside of one by what they say of themselves.
//   - Every descriptor is close-on-exec, and what a child is given is closed here
//     right after the fork.
//   - The daemon's own threads are never moved into a cgroup or a namespace; that
//     happens on threads that end with their task.
//   - No call outlives its context; without a deadline, calls are bounded by a
//     minute. Wait alone is parked until the container ends.
//   - After a failed Prepare, Boot, Create or Start nothing of it is left.
//
// Locks, in their order:
//
//	prepared.mu
//	container.turn, then that of the container whose pid namespace it joins
//	sharedVolumes.turn
//	container.execs, rootPrograms.asking, fdStore.turnLock
//	the mutexes of containers, volumeTable, sentry, opener, procSysImages and sysClassMount
//
// The slots among them are held across calls to the sandbox; who waits for one goes with
// its context, or after a while. Under the mutexes of the last line no other lock is
// taken, and no sandbox is asked.
//
// Files on disk:
//
//	<StateDir>/bin/cri-sandbox-sentry-<hash>  the staged program
//	<Config.Dir>/control.sock                 the Sentry's control socket
//	<Config.Dir>/root-id                      the root container's id, where it is not the sandbox's
//	<Config.Dir>/empty                        what a masked file shows
//	<Config.Dir>/interfaces.json              the network interfaces that the sandbox was started with
//	<Config.Dir>/panic.log                    stderr of Sentry and gofers, once one has failed
//	<Config.Dir>/boot.log, gofer-<id>.log     with Options.Debug only
package gvisor
