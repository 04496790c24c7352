// Package network connects pods to the node's network: it makes and removes
// their network namespaces, and runs the CNI plugins on them.
//
// It owns the pinned namespaces, the choice of the CNI configuration, every
// plugin process, and the knowledge of which pod is attached to what. It does not
// own pods, their records or their sandboxes, and moves no packets. It alone
// imports libcni.
//
// # Invariants
//
//   - Whatever a plugin may have set up is on record before the plugin runs, and
//     the record goes when DEL has succeeded. So a daemon that died, an ADD that
//     was cut off and a DEL that failed are all undone by Detach or GC, with the
//     configuration of the time of ADD and what its plugins had answered.
//   - No plugin outlives the context it runs under, nor the daemon: it leads a
//     process group, which is killed as a whole, and the kernel kills it when the
//     daemon dies. A plugin that leaves its group escapes the former.
//   - The configuration directory is read at each use. A file that appears, changes
//     or goes, or a directory that is made later or replaced, counts from the next
//     call on. This costs tens of microseconds beside the tens of milliseconds of
//     an ADD, and needs no watch that could miss an event.
//
// # Concurrency
//
// All calls may run at the same time. What concerns one pod (Attach, Detach, its part
// of GC) goes one after the other. The plugins' garbage collection and Attach exclude
// each other, and Attach goes first: it kills the collection's plugins, which a later
// GC runs again. Detach and the plugins' collection run beside each other: that is
// told which attachments to keep, and a DEL of one of them is no harm to it.
//
// Locks, in this order: [gcLock] in its two forms, Attach under way or plugins
// collecting; then the pod's lock, which is held across its plugins. The mutex inside
// gcLock guards memory only, and is taken alone. NewCNI, Close and Stale run no plugin
// and wait for none.
//
// # Files
//
//	CacheDir/attachments/POD.json         the network that the pod is or may be attached to
//	CacheDir/attachments/POD.json.result  what the last plugin of ADD answered
//	CacheDir/results/NET-POD-IF           libcni's copy of both after ADD, for DEL
//
// They must outlive a reboot, as the address leases of the plugins do. The record
// is written in place and not synced. A crash of the daemon can cut it short, but
// then no plugin has run; a crash of the machine can empty it, but on a file system
// with an ordered journal not lose its name while a later lease is kept. A record
// without its content still says which pod to detach; libcni's copy of the
// configuration, or the present one, says how.
package network
