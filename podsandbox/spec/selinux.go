package spec

import (
	"os"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

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
	return needsNativef("SELinux label %s:%s:%s:%s", o.GetUser(), o.GetRole(), o.GetType(), o.GetLevel())
}
