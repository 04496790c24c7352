package spec

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ValidatePod checks a RunPodSandbox request before anything happens for it. The
// first finding is returned: what contradicts the interface before what only this
// kind of sandbox cannot give, so that ErrNeedsNative means "well-formed, but".
func ValidatePod(c *runtimeapi.PodSandboxConfig) error {
	return firstError(c, []func(*runtimeapi.PodSandboxConfig) error{
		podMetadata,
		podHostname,
		podLogDirectory,
		podDNS,
		podPorts,
		podWindows,
		podCgroupParent,
		podUser,
		podNamespaceModes,
		podUserNamespace,
		podSysctlNames,
		podResources,
		podProfiles,

		podUserNamespaceNetwork,
		podHostNamespaces,
		podSysctlSupport,
		podHugepages,
		podHostClasses,
		podLSM,
		podNewerFields,
	})
}

// ValidateContainer checks a CreateContainer request against its pod, in the same
// order as ValidatePod.
func ValidateContainer(c *runtimeapi.ContainerConfig, pod *runtimeapi.PodSandboxConfig) error {
	req := containerRequest{ContainerConfig: c, pod: pod}
	return firstError(req, []func(containerRequest) error{
		containerMetadata,
		containerImage,
		containerCommand,
		containerEnv,
		containerLogPath,
		containerStopSignal,
		containerWindows,
		containerUser,
		containerPrivileged,
		containerGroups,
		containerNamespaceModes,
		containerUserNamespace,
		containerCapabilities,
		containerPaths,
		containerResources,
		containerProfiles,
		containerDevices,
		mountDestinations,
		mountSources,
		mountOptions,
		mountImages,
		mountIDMappings,

		containerHostNamespaces,
		containerHugepages,
		containerHostClasses,
		containerLSM,
		mountPropagation,
		mountEnginePaths,
		containerNewerFields,
	})
}

// containerRequest is a container with the pod that it is to join.
type containerRequest struct {
	*runtimeapi.ContainerConfig
	pod *runtimeapi.PodSandboxConfig
}

func (r containerRequest) security() *runtimeapi.LinuxContainerSecurityContext {
	return r.GetLinux().GetSecurityContext()
}

func firstError[T any](v T, checks []func(T) error) error {
	for _, check := range checks {
		if err := check(v); err != nil {
			return err
		}
	}
	return nil
}
