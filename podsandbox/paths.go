package podsandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// paths knows every place on the host that belongs to pods:
//
// Nobody but root walks into any of these folders: what a sandbox uses of them, it
// gets by descriptor.
//
//	<root>/pods/                        records
//	<state>/netns/<pod>                 the pinned network namespace
//	<state>/pods/<pod>/
//	├── engine/                         the engine's: control socket, panic log
//	├── cgroup                          the parent cgroup, for when the record is lost
//	├── resolv.conf hostname hosts      what the containers' root file systems begin with
//	└── <container>/
//	    ├── rootfs/                     the mounted root file system
//	    ├── volumes/empty/              below volumes that the image has no folder for
//	    ├── images/<n>/                 images that the request mounts
//	    └── streams/                    FIFOs, spools, journal
type paths struct{ root, state string }

func (p paths) records() string              { return filepath.Join(p.root, "pods") }
func (p paths) namespaces() string           { return filepath.Join(p.state, "netns") }
func (p paths) netns(pod string) string      { return filepath.Join(p.namespaces(), pod) }
func (p paths) pods() string                 { return filepath.Join(p.state, "pods") }
func (p paths) pod(id string) string         { return filepath.Join(p.pods(), id) }
func (p paths) engine(pod string) string     { return filepath.Join(p.pod(pod), "engine") }
func (p paths) cgroup(pod string) string     { return filepath.Join(p.pod(pod), "cgroup") }
func (p paths) resolvConf(pod string) string { return filepath.Join(p.pod(pod), "resolv.conf") }
func (p paths) hostname(pod string) string   { return filepath.Join(p.pod(pod), "hostname") }
func (p paths) hosts(pod string) string      { return filepath.Join(p.pod(pod), "hosts") }

func (p paths) container(pod, id string) string { return filepath.Join(p.pod(pod), id) }
func (p paths) rootfs(pod, id string) string    { return filepath.Join(p.container(pod, id), "rootfs") }
func (p paths) volumes(pod, id string) string   { return filepath.Join(p.container(pod, id), "volumes") }
func (p paths) images(pod, id string) string    { return filepath.Join(p.container(pod, id), "images") }
func (p paths) streams(pod, id string) string   { return filepath.Join(p.container(pod, id), "streams") }

func (p paths) make() error {
	for _, dir := range []string{p.root, p.state, p.records(), p.namespaces(), p.pods()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return nil
}

// readBootID names the running kernel's boot; proc(5), /proc/sys/kernel/random.
func readBootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
