package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// mostMounts is how many mounts of the host a container of Kubernetes can have; the
// documentation says so.
const mostMounts = 118

// withMounts is a container as Kubernetes asks for one, with so many volumes, each of
// which holds its number.
func withMounts(t *testing.T, n int, script string) (*specs.Spec, engine.Writes) {
	t.Helper()
	spec := shell(newRootfs(t), script)
	spec.Linux.ReadonlyPaths = []string{"/proc/sys"}
	volumes := t.TempDir()
	for i := range n {
		dir := filepath.Join(volumes, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "number"), fmt.Appendln(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
		spec.Mounts = append(spec.Mounts, specs.Mount{
			Destination: fmt.Sprintf("/volumes/%d", i), Type: "bind", Source: dir, Options: []string{"rbind", "rw"},
		})
	}
	return spec, engine.Writes{
		Layers: map[string]engine.Layer{"/": {File: layerFile(t)}},
		Seed:   []engine.SeedEntry{{Path: "/etc/hosts", Mode: 0o644, Content: []byte("127.0.0.1 localhost\n")}},
	}
}

// As many mounts as one message to the sandbox can carry are made. A container with
// one more is refused when it is created, and no other container notices.
func TestCreateWithTheMostMounts(t *testing.T) {
	p := startPod(t)
	other := p.start(shell(newRootfs(t), "echo up; sleep 1000"))
	other.waitFor(t, "up")

	spec, writes := withMounts(t, mostMounts+1, "true")
	c, _ := newContainer(t, spec)
	c.Writes = writes
	err := p.Create(testContext(t), c.Container)
	if err == nil {
		err = p.Start(testContext(t), c.Container)
	}
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), fmt.Sprint(mostMounts+1)) {
		t.Errorf("with %d mounts: %v, want InvalidArgument that says the number", mostMounts+1, err)
	}
	if out, _, err := p.sh(other.ID, "echo lives"); err != nil || out != "lives\n" {
		t.Fatalf("the other container says %q, %v", out, err)
	}

	spec, writes = withMounts(t, mostMounts, "cat /volumes/*/number | wc -l; cat /volumes/117/number; echo 2 > /proc/sys/net/ipv4/tcp_sack || echo protected")
	out, code := p.finish(p.layered(spec, writes))
	if code != 0 || !strings.HasPrefix(out, "118\n117\n") || !strings.HasSuffix(out, "protected\n") {
		t.Errorf("with %d mounts: %q, status %d", mostMounts, out, code)
	}
}

// No call sends more descriptors than a sandbox takes, whatever it is for.
func TestCallRefusesTooManyDescriptors(t *testing.T) {
	files := make([]*os.File, maxMessageFiles+1)
	for i := range files {
		files[i] = os.Stdin
	}
	nobody := controlSocket(filepath.Join(t.TempDir(), "none"))
	err := classify(nobody.call(testContext(t), methodSetNetwork, networkArgs{}, nil, files...))
	if !errdefs.IsInvalidArgument(err) || errdefs.IsUnavailable(err) {
		t.Errorf("one too many: %v, want InvalidArgument", err)
	}
	err = classify(nobody.call(testContext(t), methodSetNetwork, networkArgs{}, nil, files[1:]...))
	if !errdefs.IsUnavailable(err) {
		t.Errorf("as many as there can be: %v, want nobody to listen", err)
	}
}
