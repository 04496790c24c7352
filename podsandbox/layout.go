package podsandbox

import "strings"

// The folders below are for programs that look at a manager's pods from outside,
// also while none runs; see paths.

// RecordDir is where the records of a root lie (package record).
func RecordDir(root string) string { return paths{root: root}.records() }

// PodDir is the folder of all pods' folders, each named by the pod's id and with
// folders of containers inside.
func PodDir(state string) string { return paths{state: state}.pods() }

// NamespaceDir is where network namespaces are pinned, by the ids of their pods.
func NamespaceDir(state string) string { return paths{state: state}.namespaces() }

// EngineDir is the engine's Config.Dir of a pod.
func EngineDir(state, pod string) string { return paths{state: state}.engine(pod) }

// CgroupOwner is the owner of the pods' cgroups of a root. The note is for its
// own daemon only: two daemons' pods may share a parent.
func CgroupOwner(root string) string { return root }

// ContainerOf is the id of the container that a key of the image store is for: of
// its root file system, or of an image that it mounts.
func ContainerOf(key string) string {
	id, _, _ := strings.Cut(key, imageKeyMark)
	return id
}

// imageKeyMark ends the container's id in the key of an image that it mounts. No
// id has it.
const imageKeyMark = ".image-"
