package network

import (
	"path/filepath"
	"testing"
)

func TestUsageCountsWhatPassedTheInterface(t *testing.T) {
	n := newNode(t, "1.0.0")
	pod := n.pod("usage")
	n.attach(pod)
	// The interface announces itself, which is traffic enough.
	eventually(t, "bytes were sent", func() bool {
		usage, err := Usage(pod.NetNS)
		if err != nil {
			t.Fatal(err)
		}
		return len(usage) == 1 && usage[0].Name == DefaultInterface && usage[0].TxBytes > 0
	})
	if err := n.Detach(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if usage, err := Usage(pod.NetNS); err != nil || len(usage) != 0 {
		t.Errorf("without an interface: %v, %v", usage, err)
	}
	if _, err := Usage(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("usage of a namespace that is not there")
	}
}
