package gvisor

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A socket of the host can be connected to where that was allowed, and nowhere else. One
// that a container makes is its sandbox's, in both.
func TestHostSockets(t *testing.T) {
	p := startPod(t)
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "host"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "from the host")
			c.Close()
		}
	}()
	for allowed, want := range map[bool]string{true: "from the host", false: "connection refused"} {
		own := fmt.Sprintf("/vol/own-%t", allowed)
		c, w := newContainer(t, user(t, []specs.Mount{bindMount("/vol", dir, "rw")}, "dial", "/vol/host", "listen", own, "dial", own))
		c.HostSockets = allowed
		if err := p.Create(testContext(t), c.Container); err != nil {
			t.Fatal(err)
		}
		if err := p.Start(testContext(t), c.Container); err != nil {
			t.Fatal(err)
		}
		w.Close()
		c.waitFor(t, "dial "+own+": hello")
		if !strings.Contains(c.String(), want+"\n") {
			t.Errorf("allowed %t: %s", allowed, c)
		}
		if found, _ := filepath.Glob(filepath.Join(dir, "own*")); len(found) != 0 {
			t.Errorf("the host has %v", found)
		}
		if err := p.Destroy(testContext(t), c.ID); err != nil {
			t.Fatal(err)
		}
	}
}
