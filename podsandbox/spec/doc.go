// Package spec turns what the kubelet asks for into what a sandbox engine runs. It
// knows no engine: what one cannot give, that one refuses.
// It owns the checks of a request (ValidatePod, ValidateContainer), the OCI
// runtime spec of a container and of a process in it (Container, Exec), the
// identity of its first process (ResolveUser), seccomp profiles, resource limits,
// stop signals and the contents of /etc/resolv.conf and /etc/hosts.
//
// It does not own mounts, cgroups, files or processes: it describes them, and the
// caller makes them. The CRI protos are the data model and are never modified.
// What happens to every single field is written down in docs/cri-fields.md; a
// field that cannot be honoured is refused there and here, not passed over.
//
// Functions are pure and safe for concurrent use, with these exceptions, each in
// a file of its own:
//
//	userfile.go     ResolveUser reads etc/passwd and etc/group below the root
//	                file system that it is given
//	seccompfile.go  Container reads the profile of a "Localhost" seccomp request
//	prepare.go      PrepareMounts resolves and creates mount sources on the host
//	devices.go      Devices looks at the host's device files
//	changes.go      NormalizeChanges resolves links in the sources of added mounts
//
// Invariants: a container's spec does not depend on map order, so equal input
// gives equal JSON; no annotation of a user reaches the engine under a name that
// container runtimes set; a process that does not start as root starts without
// capabilities, except for those that were asked for as ambient.
//
// Errors are classified with github.com/containerd/errdefs. InvalidArgument: the
// request contradicts itself or the interface. FailedPrecondition: this node or this
// version cannot give it.
package spec
