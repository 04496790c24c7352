package gvisor

import (
	"os"
	"path"
	"strings"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func podLSM(c *runtimeapi.PodSandboxConfig) error {
	sc := c.GetLinux().GetSecurityContext()
	return checkLSM(sc.GetApparmor(), "", sc.GetSelinuxOptions())
}

func containerLSM(c *runtimeapi.ContainerConfig) error {
	sc := c.GetLinux().GetSecurityContext()
	return checkLSM(sc.GetApparmor(), sc.GetApparmorProfile(), sc.GetSelinuxOptions()) //nolint:staticcheck // older kubelets send the string
}

// checkLSM refuses what the host's kernel would have to enforce on processes that
// it does not see.
func checkLSM(profile *runtimeapi.SecurityProfile, legacy string, se *runtimeapi.SELinuxOption) error {
	const local = "localhost/" // of the string form, from before there was a message
	if profile.GetProfileType() == runtimeapi.SecurityProfile_Localhost {
		return needsHostf("AppArmor profile %s of the host", profile.GetLocalhostRef())
	}
	if profile == nil && strings.HasPrefix(legacy, local) {
		return needsHostf("AppArmor profile %s of the host", path.Base(legacy))
	}
	return checkSELinux(se, selinuxEnabled())
}

// selinuxEnabled reports whether the host's kernel has SELinux on. That cannot
// change without a reboot.
var selinuxEnabled = sync.OnceValue(func() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
})

// checkSELinux lets options pass that have no meaning on this host, as the other
// runtimes do, and refuses those that would be expected to protect something.
func checkSELinux(o *runtimeapi.SELinuxOption, enabled bool) error {
	if !enabled || o.GetUser()+o.GetRole()+o.GetType()+o.GetLevel() == "" {
		return nil
	}
	return needsHostf("SELinux label %s:%s:%s:%s", o.GetUser(), o.GetRole(), o.GetType(), o.GetLevel())
}
