package gvisor

import (
	"fmt"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/sysctl"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

func podChecks() []func(*runtimeapi.PodSandboxConfig) error {
	return []func(*runtimeapi.PodSandboxConfig) error{
		podUserNamespace, podHostNamespaces, podSysctls, podHugepages, podHostClasses, podLSM,
	}
}

// podUserNamespace: a Sentry on the host's network is in the host's user namespace, see
// docs/architecture.md.
func podUserNamespace(c *runtimeapi.PodSandboxConfig) error {
	if !spec.IDs(c).IsZero() && spec.HostNetwork(c) {
		return needsHostf("user namespace in a pod on the host's network")
	}
	return nil
}

func podHostNamespaces(c *runtimeapi.PodSandboxConfig) error {
	return checkHostNamespaces("pod", c.GetLinux().GetSecurityContext().GetNamespaceOptions())
}

func checkHostNamespaces(who string, o *runtimeapi.NamespaceOption) error {
	switch {
	case o.GetPid() == runtimeapi.NamespaceMode_NODE:
		return needsHostf("%s asks for the host's PID namespace", who)
	case o.GetIpc() == runtimeapi.NamespaceMode_NODE:
		return needsHostf("%s asks for the host's IPC namespace", who)
	}
	return nil
}

// podSysctls refuses what the Sentry has no switch for and does otherwise.
func podSysctls(c *runtimeapi.PodSandboxConfig) error {
	asked := c.GetLinux().GetSysctls()
	name, why, malformed := sysctl.Check(asked)
	switch {
	case why == "":
		return nil
	case malformed:
		return fmt.Errorf("sysctl %s=%q: %s: %w", name, asked[name], why, errdefs.ErrInvalidArgument)
	}
	return needsHostf("sysctl %s=%q (there %s)", name, asked[name], why)
}

func podHugepages(c *runtimeapi.PodSandboxConfig) error {
	if err := checkHugepages(c.GetLinux().GetOverhead()); err != nil {
		return err
	}
	return checkHugepages(c.GetLinux().GetResources())
}

// checkHugepages accepts a limit of zero, which the kubelet sends for every page
// size of the machine: a sandbox uses none.
func checkHugepages(res *runtimeapi.LinuxContainerResources) error {
	for _, l := range res.GetHugepageLimits() {
		if l.GetLimit() > 0 {
			return needsHostf("huge pages of %s", l.GetPageSize())
		}
	}
	return nil
}

func podHostClasses(c *runtimeapi.PodSandboxConfig) error {
	return checkHostClasses(c.GetAnnotations())
}

// privilegedPod refuses a pod that is to hold privileged containers, on a node whose
// operator has not said that they are to be privileged inside their sandbox: most of
// them want the host, and would fail there in ways that are hard to understand.
func (e *Engine) privilegedPod(c *runtimeapi.PodSandboxConfig) error {
	if c.GetLinux().GetSecurityContext().GetPrivileged() && !e.opts.PrivilegedInSandbox {
		return needsHostf(`pod is to hold privileged containers, which have the host; security.privileged_pods = "sandbox" lets them be privileged inside the sandbox alone`)
	}
	return nil
}
