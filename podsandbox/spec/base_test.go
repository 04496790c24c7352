package spec

import (
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// basePod is what a kubelet sends for a plain pod.
func basePod() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "web-0", Namespace: "default", Uid: "6b3e", Attempt: 1},
		Hostname:     "web-0",
		LogDirectory: "/var/log/pods/default_web-0_6b3e",
		DnsConfig:    &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10", "fd00::a"}, Searches: []string{"default.svc.cluster.local"}, Options: []string{"ndots:5"}},
		PortMappings: []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_TCP, ContainerPort: 80, HostPort: 8080}},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/kubepods/besteffort/pod6b3e",
			Sysctls:      map[string]string{"net.ipv4.ip_local_port_range": "2000\t3000"},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
			Resources: &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: -1, CpuShares: 2},
		},
	}
}

// baseContainer is what a kubelet sends for a plain container of that pod.
func baseContainer() *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "app"},
		Image:    &runtimeapi.ImageSpec{Image: "sha256:abc", UserSpecifiedImage: "registry.test/app:1"},
		Envs:     []*runtimeapi.KeyValue{{Key: "PORT", Value: []byte("80")}},
		LogPath:  "app/0.log",
		Annotations: map[string]string{
			"io.kubernetes.container.hash":                   "1",
			"dev.gvisor.spec.rootfs.source":                  "/",
			"io.kubernetes.cri.container-type":               "sandbox",
			"io.kubernetes.cri-o.ContainerType":              "sandbox",
			"io.kubernetes.container.terminationMessagePath": "/dev/termination-log",
		},
		Mounts: []*runtimeapi.Mount{
			{ContainerPath: "/var/run/secrets/kubernetes.io/serviceaccount", HostPath: "/var/lib/kubelet/pods/6b3e/sa", Readonly: true},
			{ContainerPath: "/etc/hosts", HostPath: "/var/lib/kubelet/pods/6b3e/etc-hosts", SelinuxRelabel: true},
			{ContainerPath: "/dev/termination-log", HostPath: "/var/lib/kubelet/pods/6b3e/containers/app/0"},
			{ContainerPath: "/var/", HostPath: "/srv", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, MountOptions: []string{"noexec"}},
		},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{
				CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 900,
				HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}, Unified: map[string]string{"memory.oom.group": "1"},
			},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				Apparmor:         &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

func baseInput() Input {
	return Input{
		ID: "c1", SandboxID: "0123456789abcdef", Pod: basePod(), Container: baseContainer(),
		Image: ocispec.ImageConfig{
			Entrypoint: []string{"/app"}, Cmd: []string{"serve"}, WorkingDir: "/srv", Env: []string{"PATH=/bin", "A=1", "broken", "=x"},
			Volumes: map[string]struct{}{"/data": {}},
		},
		User:     ResolvedUser{Groups: []uint32{0}, Home: "/root"},
		RootPath: "/run/state/c1/rootfs",
		Hostname: "web-0",
		Volumes:  map[string]string{"/data": "/run/state/c1/volumes/0"},
		Files:    map[string]string{"/etc/resolv.conf": "/run/state/resolv.conf", "/etc/hostname": "/run/state/hostname", "/etc/hosts": "/run/state/hosts"},
	}
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
