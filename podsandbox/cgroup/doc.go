// Package cgroup owns the control group of a pod on the host: the directories that
// the sandbox process and its helpers are born in, the limits that the host
// enforces on the pod as a whole, and what the host counts of it.
//
// It does not own the parent, which is the kubelet's, does not move processes,
// and knows nothing of groups inside a sandbox.
//
// # Directories
//
//	v1   <mount of each controller>/<parent>/<id>, the systemd hierarchy included
//	v2   /sys/fs/cgroup/<parent>/<id>
//
// A parent like "kubepods-burstable-podX.slice" stands for the nested directories of
// that slice, and the pod is "cri-sandbox-<id>.scope" in it. Where systemd runs,
// Adopt tells it of the scope once a process is in it, since systemd accepts no
// scope without one. On a hybrid host the bare v2 hierarchy is not used.
//
// # Invariants
//
//   - Nothing is kept in memory that Load cannot find again. Parents that Create
//     had to make carry an extended attribute (trusted.cri-sandbox), and Delete
//     removes them with their last pod, also after a restart; other parents stay.
//   - Create and Delete of different pods, also of two daemons, may meet in a
//     parent: a directory removed between two steps of Create is made again.
//
// There are no locks: the kernel is the only state. All methods are safe for
// concurrent use. Errors are classified with github.com/containerd/errdefs:
// InvalidArgument (a path, or a value the kernel refuses), FailedPrecondition
// (the node has no such controller, or the group is in use), NotFound (the group
// is gone), DeadlineExceeded (its processes do not die).
package cgroup
