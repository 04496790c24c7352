package capability

import (
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestNamesAreInTheKernelsOrder at both ends and where the numbers are well known.
func TestNamesAreInTheKernelsOrder(t *testing.T) {
	for name, number := range map[string]int{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_SETPCAP": unix.CAP_SETPCAP, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN,
		"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_BPF": unix.CAP_BPF,
		"CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got, err := Mask([]string{name}); err != nil || got != 1<<number {
			t.Errorf("%s: %#x, %v; want bit %d", name, got, err, number)
		}
	}
	if len(All) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names of %d capabilities", len(All), unix.CAP_LAST_CAP+1)
	}
	if _, err := Mask([]string{"CAP_KILL", "KILL"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a name without its prefix: %v", err)
	}
}
