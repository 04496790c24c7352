package gvisor

import (
	"maps"
	"path"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func containerChecks() []func(*runtimeapi.ContainerConfig) error {
	return []func(*runtimeapi.ContainerConfig) error{
		containerHostNamespaces, containerHugepages, containerHostClasses, containerLSM, mountPropagation, mountPlaces,
	}
}

func containerHostNamespaces(c *runtimeapi.ContainerConfig) error {
	return checkHostNamespaces("container", c.GetLinux().GetSecurityContext().GetNamespaceOptions())
}

func containerHugepages(c *runtimeapi.ContainerConfig) error {
	return checkHugepages(c.GetLinux().GetResources())
}

// hostClasses are annotations that put processes of the host's kernel into a class
// of block I/O or cache; passing them over would break a promise of the operator.
var hostClasses = []string{"blockio.resources.beta.kubernetes.io/", "rdt.resources.beta.kubernetes.io/"}

func containerHostClasses(c *runtimeapi.ContainerConfig) error {
	return checkHostClasses(c.GetAnnotations())
}

func checkHostClasses(annotations map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		for _, prefix := range hostClasses {
			if strings.HasPrefix(key, prefix) {
				return needsHostf("resource class in annotation %s", key)
			}
		}
	}
	return nil
}

func mountPropagation(c *runtimeapi.ContainerConfig) error {
	for _, m := range c.GetMounts() {
		if m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL {
			return needsHostf("mount %s with bidirectional propagation", m.GetContainerPath())
		}
	}
	return nil
}

// mountPlaces refuses to cover what the Sentry must serve itself: it would put its own
// file system there whatever the request says.
func mountPlaces(c *runtimeapi.ContainerConfig) error {
	for _, m := range c.GetMounts() {
		if dst := path.Clean(m.GetContainerPath()); sentryServes(dst) {
			return needsHostf("mount over %s", dst)
		}
	}
	return nil
}

// sentryServes reports whether the Sentry puts its own at a clean destination.
func sentryServes(dst string) bool {
	return dst == "/dev" || dst == "/dev/pts" || dst == "/proc" || strings.HasPrefix(dst, "/proc/")
}
