package gvisor

import (
	"strings"
	"testing"
)

func TestContainerRuns(t *testing.T) {
	p := startPod(t)
	out, code := p.run(shell(newRootfs(t), "hostname; dmesg | grep -i gvisor | head -1; ip addr show eth0; exit 7"))
	if code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	for _, want := range []string{"pod-host", "gVisor", podIP} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}
