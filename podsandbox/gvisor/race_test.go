package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// A directory of a volume is swapped for a link that leads to a directory of the node, and
// back, while containers are created with mounts below it: nothing is ever made,
// opened or mounted there. Each of the containers starts or is refused.
func TestMountRaceInAVolumeReachesNothingOfTheNode(t *testing.T) {
	p := startPod(t)
	vol, outside, source := t.TempDir(), t.TempDir(), t.TempDir()
	existing := filepath.Join(outside, "file")
	if err := os.WriteFile(existing, []byte("of the node"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := newRootfs(t)
	bind := func(source, destination string) specs.Mount {
		return specs.Mount{Destination: destination, Type: "bind", Source: source, Options: []string{"rbind", "rw"}}
	}
	for _, err := range []error{os.Mkdir(filepath.Join(vol, "x"), 0o777), os.Symlink(outside, filepath.Join(vol, "y"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// Whoever writes to the volume, as fast as it goes.
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for x, y := filepath.Join(vol, "x"), filepath.Join(vol, "y"); ; {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, x, unix.AT_FDCWD, y, unix.RENAME_EXCHANGE)
			}
		}
	})
	defer swapper.Wait()
	defer close(stop)
	rootBefore, outsideBefore := snapshot(t, root), snapshot(t, outside)

	started := 0
	for round, until := 0, time.Now().Add(10*time.Second); time.Now().Before(until); round++ {
		spec := shell(root, "cat /vol/x/file /vol/y/file")
		spec.Mounts = append(spec.Mounts, bind(vol, "/vol"), bind(source, "/vol/x/made/deep"), bind(existing, "/vol/x/made-file"))
		switch round % 3 { // often refused: what was there is gone when it is mounted
		case 1:
			spec.Linux.ReadonlyPaths = []string{"/vol/x"}
		case 2:
			spec.Linux.MaskedPaths = []string{"/vol/x/file"}
		}
		c, w := newContainer(t, spec)
		c.Writes = engine.Writes{Layers: map[string]engine.Layer{"/": {}}}
		err := p.Create(testContext(t), c.Container)
		if err == nil {
			err = p.Start(testContext(t), c.Container)
		}
		w.Close()
		ran := err == nil
		if ran {
			started++
			_, err = p.Wait(testContext(t), c.ID)
		}
		if err := p.Destroy(testContext(t), c.ID); err != nil {
			t.Fatal(err)
		}
		if ran {
			<-c.eof
		}
		if out := c.String(); strings.Contains(out, "of the node") {
			t.Fatalf("a container reads a file of the node: %q (%v)", out, err)
		}
		if after := snapshot(t, outside); after != outsideBefore {
			t.Fatalf("after %d starts the node's directory is\n%s\nand was\n%s", started, after, outsideBefore)
		}
	}
	t.Logf("%d containers were started", started)
	if started == 0 {
		t.Error("no container could be started, so nothing was tried")
	}
	if after := snapshot(t, root); after != rootBefore {
		t.Errorf("the root file system is\n%s\nand was\n%s", after, rootBefore)
	}
}
