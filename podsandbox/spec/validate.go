package spec

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ValidatePod checks whether a RunPodSandbox request is well-formed, before anything
// happens for it. The first finding is returned. What its engine cannot give, that
// refuses afterwards.
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
		podNewerFields,
	})
}

// ValidateContainer checks a CreateContainer request against its pod, as ValidatePod
// does.
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
