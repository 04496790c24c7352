// Package layout knows every place on the host that belongs to pods, for their owner
// and for programs that look from outside, also while no daemon runs. It reads and
// writes nothing but for Make.
//
// Nobody but root walks into any of these directories: what a sandbox uses of them, it
// gets by descriptor.
//
//	<root>/pods/                        records (package record)
//	<state>/netns/<pod>                 the pinned network namespace
//	<state>/pods/<pod>/
//	├── engine/                         the engine's: control socket, panic log
//	├── cgroup                          the parent cgroup, for when the record is lost
//	├── resolv.conf hostname hosts      what the containers' root file systems begin with
//	└── <container>/
//	    ├── rootfs/                     the mounted root file system
//	    ├── volumes/empty/              below volumes that the image has no directory for
//	    ├── images/<n>/                 images that the request mounts
//	    └── streams/                    FIFOs, spools, journal
package layout

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Paths are the places of one daemon.
type Paths struct {
	Root  string // outlives a reboot
	State string // does not
}

// Make makes the directories that hold the others.
func (p Paths) Make() error {
	for _, dir := range []string{p.Root, p.State, p.Records(), p.Namespaces(), p.Pods()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return nil
}

// Records is where the records lie.
func (p Paths) Records() string { return filepath.Join(p.Root, "pods") }

// Namespaces is where network namespaces are pinned, by the ids of their pods.
func (p Paths) Namespaces() string { return filepath.Join(p.State, "netns") }

// NetNS is the pinned network namespace of a pod.
func (p Paths) NetNS(pod string) string { return filepath.Join(p.Namespaces(), pod) }

// Pods has a directory for each pod, named by its id.
func (p Paths) Pods() string { return filepath.Join(p.State, "pods") }

// Pod is the directory of a pod. It has directories of containers inside.
func (p Paths) Pod(id string) string { return filepath.Join(p.Pods(), id) }

// Engine is the engine's own directory of a pod.
func (p Paths) Engine(pod string) string { return filepath.Join(p.Pod(pod), "engine") }

// Cgroup is a file with the parent of a pod's cgroup.
func (p Paths) Cgroup(pod string) string { return filepath.Join(p.Pod(pod), "cgroup") }

// ResolvConf, Hostname and Hosts are what a pod's containers see in /etc.
func (p Paths) ResolvConf(pod string) string { return filepath.Join(p.Pod(pod), "resolv.conf") }

// Hostname is a pod's /etc/hostname.
func (p Paths) Hostname(pod string) string { return filepath.Join(p.Pod(pod), "hostname") }

// Hosts is a pod's /etc/hosts.
func (p Paths) Hosts(pod string) string { return filepath.Join(p.Pod(pod), "hosts") }

// Container is the directory of a container.
func (p Paths) Container(pod, id string) string { return filepath.Join(p.Pod(pod), id) }

// Rootfs is where a container's root file system is mounted.
func (p Paths) Rootfs(pod, id string) string { return filepath.Join(p.Container(pod, id), "rootfs") }

// Volumes is for volumes that an image declares.
func (p Paths) Volumes(pod, id string) string { return filepath.Join(p.Container(pod, id), "volumes") }

// Images has the mount points of the images that a container's request mounts.
func (p Paths) Images(pod, id string) string { return filepath.Join(p.Container(pod, id), "images") }

// Image is where the n-th mount of the request, an image, is mounted.
func (p Paths) Image(pod, id string, n int) string {
	return filepath.Join(p.Images(pod, id), strconv.Itoa(n))
}

// Streams is for a container's standard streams.
func (p Paths) Streams(pod, id string) string { return filepath.Join(p.Container(pod, id), "streams") }

// CgroupOwner marks the pods' cgroups of a root. The file Cgroup is for its own daemon
// only: two daemons' pods may share a parent.
func (p Paths) CgroupOwner() string { return p.Root }

// imageKeyMark ends the container's id in the key of an image that it mounts. No id
// has it.
const imageKeyMark = ".image-"

// ImageKey is the key in the image store of the n-th mount of a container's request.
func ImageKey(container string, n int) string { return container + imageKeyMark + strconv.Itoa(n) }

// ContainerOf is the id of the container that a key of the image store is for: of its
// root file system, or of an image that it mounts.
func ContainerOf(key string) string {
	id, _, _ := strings.Cut(key, imageKeyMark)
	return id
}
