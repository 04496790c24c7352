package engine

import "strings"

// The PID namespace of a container is the entry of that type in its spec:
//
//	no path                  its own, which no other container can join
//	PIDNamespaceOf(itself)   its own, for others to join while it runs
//	PIDNamespaceOf(another)  that one's, which has to run when this one starts, and
//	                         whose end ends this one
//	PodPIDNamespace          the sandbox's, with the root container as its first process
//
// A path is a name within the sandbox, and no file.

// PodPIDNamespace is the path of the PID namespace that a pod's containers share.
const PodPIDNamespace = "pod"

const ofContainer = "container/"

// PIDNamespaceOf is the path of a container's own PID namespace.
func PIDNamespaceOf(id string) string { return ofContainer + id }

// PIDNamespaceOwner is the container whose PID namespace a path names; false for
// other paths.
func PIDNamespaceOwner(path string) (id string, ok bool) { return strings.CutPrefix(path, ofContainer) }
