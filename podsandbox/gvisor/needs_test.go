package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// A container gets raw sockets and FIFOs of the host only where its spec needs them.
func TestRightsFollowFromTheSpec(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bind := func(source string, options ...string) specs.Mount {
		return specs.Mount{Destination: "/vol", Type: "bind", Source: source, Options: append([]string{"rbind"}, options...)}
	}
	s := &Sandbox{}
	for name, tc := range map[string]struct {
		change    func(*specs.Spec)
		layers    map[string]engine.Layer
		raw, fifo bool
	}{
		"as Kubernetes asks by default": {raw: true},
		"without the capability":        {change: func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}} }},
		"a volume":                      {change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind(dir, "rw")) }, raw: true, fifo: true},
		"one to read":                   {change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind(dir, "ro")) }, raw: true},
		"a file":                        {change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind(file, "rw")) }, raw: true},
		"a volume with a layer": {change: func(s *specs.Spec) { s.Mounts = append(s.Mounts, bind(dir, "rw")) },
			layers: map[string]engine.Layer{"/vol": {}}, raw: true},
	} {
		spec := shell(t.TempDir(), "true")
		if tc.change != nil {
			tc.change(spec)
		}
		p, err := s.prepareSpec(testContext(t), engine.Container{ID: "c", Spec: spec, Writes: engine.Writes{Layers: tc.layers}})
		if err != nil {
			t.Fatal(err)
		}
		if conf := confOf(p); conf.EnableRaw != tc.raw || (conf.HostFifo == hostFIFOOpen) != tc.fifo {
			t.Errorf("%s: %+v", name, conf)
		}
	}
}

// A FIFO that an image brings along lies on the host, and nobody there is to be met
// through it.
func TestFIFOsOfImagesAreClosed(t *testing.T) {
	p := startPod(t)
	root := newRootfs(t)
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := p.layered(shell(root, `timeout 10 cat /fifo; echo image $?; mkfifo /own && (echo own > /own &) && timeout 10 cat /own`),
		engine.Writes{Layers: map[string]engine.Layer{"/": {File: layerFile(t)}}})
	if out, _ := p.finish(c); !strings.Contains(out, "image 1\n") || !strings.HasSuffix(out, "\nown\n") {
		t.Errorf("output %q", out)
	}
}
