package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// testHang: a plugin that does not answer is disconnected after its time-out. The
// request and those of other pods go on.
func (n nriNode) testHang(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	id, pod := k.pod()
	other, otherPod := k.pod(func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Name += "-other" })
	p.order("CreateContainer", map[string]any{"do": "hang", "container": "held"})
	held := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		_, err := k.runtime().CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: id, Config: k.shell("held", "true"), SandboxConfig: pod})
		held <- err
	}()
	p.await("CreateContainer", "held")
	k.run(other, otherPod, k.shell("other", "true"))
	k.must(<-held)
	for _, e := range p.events("") {
		if e.Container == "other" {
			t.Errorf("a plugin that hangs was told of %s", e.Event)
		}
	}
	<-p.done
}

// testCrash: a plugin that dies takes nothing with it, and may come again.
func (n nriNode) testCrash(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	id, pod := k.pod()
	p.order("StartContainer", map[string]any{"do": "crash"})
	cid := k.start(id, pod, k.shell("a", forever))
	<-p.done
	p = n.plugin(t)
	if e := p.await("Synchronize", ""); fmt.Sprint(e.Containers) != "[a]" {
		t.Errorf("synchronized with %v", e.Containers)
	}
	_, err := k.runtime().RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: cid})
	k.must(err)
	p.follows(p.events(pod.Metadata.Name), "StopContainer(a) RemoveContainer(a)")
}

// testOnce: what begins while a plugin is being told what there is, it learns from
// the event.
func (n nriNode) testOnce(t *testing.T) {
	k, dir := n.on(t), t.TempDir()
	k.must(os.WriteFile(filepath.Join(dir, "orders"), []byte(`{"Synchronize": {"do": "linger"}}`), 0o644))
	id, pod := k.pod()
	p := n.pluginIn(t, dir) // it lingers now
	k.run(id, pod, k.shell("meanwhile", "true"))
	p.await("StopContainer", "meanwhile")
	p.follows(p.events(pod.Metadata.Name), "CreateContainer(meanwhile) PostCreateContainer(meanwhile) StartContainer(meanwhile)"+
		" PostStartContainer(meanwhile) StopContainer(meanwhile)")
	if e := p.await("Synchronize", ""); fmt.Sprint(e.Pods) != fmt.Sprintf("[%s]", pod.Metadata.Name) {
		t.Errorf("synchronized with %v", e.Pods)
	}
}

// testPolicy: a plugin may ask that requests fail without its answer.
func (n nriNode) testPolicy(t *testing.T) {
	k, p := n.on(t), n.plugin(t, "-fail-request")
	id, pod := k.pod()
	p.order("CreateContainer", map[string]any{"do": "hang"})
	_, err := k.create(id, pod, k.shell("a", "true"))
	k.refused(err, codes.DeadlineExceeded, "10-test", "CreateContainer")
	<-p.done
	k.run(id, pod, k.shell("a", "true"))
}

// TestNRIPluginDirectory: a plugin that the daemon starts itself, with its
// configuration, from before the first pod to the daemon's end.
func TestNRIPluginDirectory(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	n := newNRINode(t, fmt.Sprintf("[nri]\nplugin_dir = %q\nconfig_dir = %q\n", dir, dir))
	program, err := os.ReadFile(n.program)
	n.must(err)
	n.must(os.WriteFile(filepath.Join(dir, "20-launched"), program, 0o755))
	n.must(os.WriteFile(filepath.Join(dir, "20-launched.conf"), fmt.Appendf(nil, `{"log": %q}`, log), 0o644))
	n.must(n.env.Stop(n.ctx))
	_, err = n.env.Start(n.ctx)
	n.must(err)
	p := &nriPlugin{kit: n.kit, log: log}
	p.await("Synchronize", "")
	id, pod := n.pod()
	n.run(id, pod, n.shell("a", "true"))
	p.await("StopContainer", "a")
}
