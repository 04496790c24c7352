// Package idmap shows files of the node to a pod through a mapping of user and
// group ids: it makes the user namespaces that stand for a mapping, and copies of
// mount trees that are seen through one (mount_setattr(2), MOUNT_ATTR_IDMAP).
//
// It does not own where such a tree is attached, nor which mapping a pod has; it
// keeps no state, and nothing of it is on disk. A tree that is nowhere attached
// goes with its descriptor.
//
// A mapping reads as in user_namespaces(7): ContainerID is what the pod sees and
// what the file system holds, HostID what the node's kernel counts with.
//
// All functions are safe for concurrent use and need root.
package idmap
