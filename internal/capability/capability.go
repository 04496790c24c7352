// Package capability knows the names of Linux's capabilities, of which the Sentry
// has all (capabilities(7); gVisor's pkg/abi/linux/capability.go). It has no state.
package capability

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// All are the names in the order of their numbers; nobody changes it.
var All = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
	"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// Mask is the set with a bit for each name, as the kernel counts them. A name that
// is unknown is errdefs.ErrInvalidArgument.
func Mask(names []string) (uint64, error) {
	var mask uint64
	for _, name := range names {
		i := slices.Index(All, name)
		if i < 0 {
			return 0, fmt.Errorf("unknown capability %q: %w", name, errdefs.ErrInvalidArgument)
		}
		mask |= 1 << i
	}
	return mask, nil
}
