package podsandbox

import (
	"errors"
	"fmt"
	"os"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/internal/regular"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// What the containers of a pod see in /etc is written once, by the daemon, and read
// when a container is created: each gets its own copy, into its root file system.
// No container writes to the daemon's.

// podFile is one of these files, by its path in containers.
type podFile struct{ path, source string }

func (m *Manager) podFiles(pod string) []podFile {
	return []podFile{
		{"/etc/resolv.conf", m.paths.resolvConf(pod)}, {"/etc/hostname", m.paths.hostname(pod)}, {"/etc/hosts", m.paths.hosts(pod)},
	}
}

// maxNodeFile bounds a file of the node that becomes a pod's, in bytes.
const maxNodeFile = 16 << 20

// makePodFiles writes what the pod's containers see in /etc.
func (m *Manager) makePodFiles(p *pod) error {
	if err := os.MkdirAll(m.paths.engine(p.id()), 0o700); err != nil {
		return fmt.Errorf("make pod folder: %w", err)
	}
	hostResolv, err := regular.Read("/etc/resolv.conf", maxNodeFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the node's resolv.conf: %w", err)
	}
	hostname, err := podHostname(p)
	if err != nil {
		return err
	}
	crashpoint.Here("after pod folder")
	return errors.Join(
		writePodFile(m.paths.resolvConf(p.id()), spec.ResolvConf(p.config().GetDnsConfig(), hostResolv)),
		writePodFile(m.paths.hostname(p.id()), []byte(hostname+"\n")),
	)
}

// makeHosts writes /etc/hosts for containers that get none from the kubelet.
// The addresses are known by now.
func (m *Manager) makeHosts(p *pod) error {
	hostname, err := podHostname(p)
	if err != nil {
		return err
	}
	content := spec.HostsFile(hostname, p.Status().IPs)
	if p.hostNetwork() {
		if content, err = regular.Read("/etc/hosts", maxNodeFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read the node's hosts: %w", err)
		}
	}
	return writePodFile(m.paths.hosts(p.id()), content)
}

func writePodFile(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write pod file: %w", err)
	}
	return nil
}
