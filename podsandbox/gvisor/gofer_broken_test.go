package gvisor

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// A gofer whose list of mounts has no end costs its container an error, and the
// daemon no memory.
func TestGofersListWithoutEndIsBounded(t *testing.T) {
	p := startPod(t)
	p.eng.program = brokenProgram(t, endlessProgram)
	c, _ := newContainer(t, shell(newRootfs(t), "true"))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.Create(ctx, c.Container); err != nil {
		t.Fatal(err)
	}
	g := p.containers.get(c.ID).gofer
	if err := p.Start(ctx, c.Container); !errdefs.IsInternal(err) {
		t.Errorf("start: %v, want Internal", err)
	}
	<-g.proc.done
}

// The pipe for the list may outlive the gofer, if that gave it to somebody.
func TestGofersListThatOutlivesItsGofer(t *testing.T) {
	p := startPod(t)
	p.eng.program = brokenProgram(t, idleProgram)
	c, _ := newContainer(t, shell(newRootfs(t), "true"))
	if err := p.Create(testContext(t), c.Container); err != nil {
		t.Fatal(err)
	}
	g := p.containers.get(c.ID).gofer
	accomplice := otherEnd(t, g)
	defer accomplice.Close()
	if err := p.Destroy(testContext(t), c.ID); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.ready:
	case <-time.After(30 * time.Second):
		t.Error("the list is still waited for")
	}
}

// otherEnd opens the writing end of the pipe for a gofer's list of mounts.
func otherEnd(t *testing.T, g *gofer) *os.File {
	t.Helper()
	fd, err := rawFD(g.resolved)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
