package rootfs

import (
	"errors"
	"fmt"
	"os"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/internal/regular"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// What the containers of a pod see in /etc is written once, by the daemon, and read
// when a container is created: each gets its own copy, into its root file system.
// No container writes to the daemon's.

// podFile is one of these files, by its path in containers.
type podFile struct{ path, source string }

func (b *Builder) podFiles(pod string) []podFile {
	return []podFile{
		{"/etc/resolv.conf", b.paths.ResolvConf(pod)}, {"/etc/hostname", b.paths.Hostname(pod)}, {"/etc/hosts", b.paths.Hosts(pod)},
	}
}

// maxNodeFile bounds a file of the node that becomes a pod's, in bytes.
const maxNodeFile = 16 << 20

// MakePodFiles writes what the pod's containers see in /etc, but for the addresses. It
// makes the pod's directory, and the engine's in it.
func (b *Builder) MakePodFiles(p *state.Pod, hostname string) error {
	if err := os.MkdirAll(b.paths.Engine(p.ID()), 0o700); err != nil {
		return fmt.Errorf("make pod directory: %w", err)
	}
	hostResolv, err := regular.Read("/etc/resolv.conf", maxNodeFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the node's resolv.conf: %w", err)
	}
	crashpoint.Here("after pod directory")
	return errors.Join(
		writePodFile(b.paths.ResolvConf(p.ID()), spec.ResolvConf(p.Config().GetDnsConfig(), hostResolv)),
		writePodFile(b.paths.Hostname(p.ID()), []byte(hostname+"\n")),
	)
}

// MakeHosts writes /etc/hosts for containers that get none from the kubelet. The
// addresses are known by now.
func (b *Builder) MakeHosts(p *state.Pod, hostname string) error {
	content := spec.HostsFile(hostname, p.Status().IPs)
	if p.HostNetwork() {
		var err error
		if content, err = regular.Read("/etc/hosts", maxNodeFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read the node's hosts: %w", err)
		}
	}
	return writePodFile(b.paths.Hosts(p.ID()), content)
}

func writePodFile(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write pod file: %w", err)
	}
	return nil
}
