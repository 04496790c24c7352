package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// inMemory is a container whose mounts at these places are volumes in memory.
func (p *pod) inMemory(spec *specs.Spec, memory map[string]engine.MemoryVolume) *running {
	p.t.Helper()
	c, w := newContainer(p.t, spec)
	c.Writes.Memory = memory
	ctx := testContext(p.t)
	if err := p.Create(ctx, c.Container); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Start(ctx, c.Container); err != nil {
		p.t.Fatal(err)
	}
	w.Close()
	return c
}

// A volume in memory is a tmpfs that all containers of the pod have in common, whichever
// of them live, and the host sees nothing of it.
func TestMemoryVolumes(t *testing.T) {
	p := startPod(t)
	host, inner := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(inner, "x"), []byte("inner"), 0o644); err != nil {
		t.Fatal(err)
	}
	volume := engine.MemoryVolume{Name: "cache", Bytes: 8 << 20, Inodes: 1000, Mode: 0o2777, UID: 5, GID: 3000}
	below := volume
	below.Below = "a/b"
	whole := map[string]engine.MemoryVolume{"/vol": volume}
	first := p.inMemory(user(t, []specs.Mount{bindMount("/vol", host, "rw"), bindMount("/vol/in", inner, "ro")},
		"owner", "/vol", "filesystem", "/vol", "make", "/vol/x", "read", "/vol/in/x", "make", "/vol/in/y"), whole)
	first.waitFor(t, "make /vol/in/y")
	for _, want := range []string{"owner /vol: 5:3000 2777", "filesystem /vol: 0x1021994 flags 0x0", "read /vol/in/x: inner", "read-only file system"} {
		if !strings.Contains(first.String(), want+"\n") {
			t.Errorf("no %q in the output:\n%s", want, first)
		}
	}
	if _, err := p.Wait(testContext(t), first.ID); err != nil {
		t.Fatal(err)
	}
	if err := p.Destroy(testContext(t), first.ID); err != nil {
		t.Fatal(err)
	}
	// All that had it are gone. Now a directory of it, before it is there.
	second := p.inMemory(user(t, []specs.Mount{bindMount("/sub", host, "rw")}, "owner", "/sub", "make", "/sub/y", "listen", "/sub/socket", "sleep", ""),
		map[string]engine.MemoryVolume{"/sub": below})
	second.waitFor(t, "bound")
	third := p.inMemory(user(t, []specs.Mount{bindMount("/vol", host, "ro"), bindMount("/sub", host, "rw")},
		"read", "/vol/x", "read", "/vol/a/b/y", "dial", "/vol/a/b/socket", "owner", "/vol/a", "make", "/vol/z", "filesystem", "/vol", "make", "/sub/z", "read", "/vol/a/b/z"),
		map[string]engine.MemoryVolume{"/vol": volume, "/sub": below})
	third.waitFor(t, "read /vol/a/b/z")
	for want, c := range map[string]*running{
		"owner /sub: 5:3000 2777": second, "read /vol/x: made": third, "read /vol/a/b/y: made": third, "dial /vol/a/b/socket: hello": third,
		"owner /vol/a: 5:3000 2777": third, "make /vol/z: open /vol/z: read-only file system": third,
		"filesystem /vol: 0x1021994 flags 0x1": third, "read /vol/a/b/z: made": third,
	} {
		if !strings.Contains(c.String(), want+"\n") {
			t.Errorf("no %q in the output:\n%s", want, c)
		}
	}
	if entries, err := os.ReadDir(host); err != nil || len(entries) != 0 {
		t.Errorf("the host has %v, %v", entries, err)
	}

	// The next daemon finds it, and so does a container that it starts.
	s, err := p.eng.Adopt(testContext(t), p.cfg, p.Process())
	if err != nil {
		t.Fatal(err)
	}
	next := &pod{Sandbox: s.(*Sandbox), t: t, eng: p.eng}
	spec := shell(newRootfs(t), "cat /vol/x; df -k /vol | tail -n 1; head -c 9000000 /dev/zero > /vol/big || echo full")
	spec.Mounts = append(spec.Mounts, bindMount("/vol", host, "rw"))
	fourth := next.inMemory(spec, whole)
	if _, err := next.Wait(testContext(t), fourth.ID); err != nil {
		t.Fatal(err)
	}
	fourth.waitFor(t, "full")
	if out := fourth.String(); !strings.HasPrefix(out, "made") || !strings.Contains(out, " 8192 ") {
		t.Errorf("output %q", out)
	}
}

// A part of a volume is looked up where the container is that has it: who can write to the
// volume leads it to no other volume of the pod.
func TestMemoryVolumePartsLeadNowhere(t *testing.T) {
	p := startPod(t)
	mounts := []specs.Mount{bindMount("/vol", t.TempDir(), "rw"), bindMount("/other", t.TempDir(), "rw")}
	volume, other := engine.MemoryVolume{Name: "vol", Mode: 0o777}, engine.MemoryVolume{Name: "other", Mode: 0o777, Below: "y"}
	writer := p.inMemory(user(t, mounts, "make", "/other/secret", "link", "/vol/x", "sleep", ""), map[string]engine.MemoryVolume{"/vol": volume, "/other": other})
	writer.waitFor(t, "link /vol/x: made")
	volume.Below = "x/y"
	c, _ := newContainer(t, user(t, mounts[:1], "list", "/vol", "read", "/vol/secret"))
	c.Writes.Memory = map[string]engine.MemoryVolume{"/vol": volume}
	if err := p.Create(testContext(t), c.Container); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(testContext(t), c.Container); err == nil {
		c.waitFor(t, "read /vol/secret")
		t.Errorf("it was started: %s", c)
	}
}

func TestMemoryVolumesWithBadNames(t *testing.T) {
	p := startPod(t)
	for _, v := range []engine.MemoryVolume{{Name: ""}, {Name: ".."}, {Name: "a/b"}, {Name: "a", Below: "../x"}, {Name: "a", Below: "x//y"}} {
		c, _ := newContainer(t, user(t, []specs.Mount{bindMount("/vol", t.TempDir(), "rw")}, "owner", "/vol"))
		c.Writes.Memory = map[string]engine.MemoryVolume{"/vol": v}
		err := p.Create(testContext(t), c.Container)
		if err == nil {
			err = p.Start(testContext(t), c.Container)
		}
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", v, err)
		}
	}
}
