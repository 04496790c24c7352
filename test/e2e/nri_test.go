package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestNRI drives one node with a plugin after the other.
func TestNRI(t *testing.T) {
	cdi := t.TempDir()
	n := newNRINode(t, fmt.Sprintf("[nri]\nrequest_timeout = '1s'\n[cdi]\nspec_dirs = [%q]\n", cdi))
	n.must(os.WriteFile(filepath.Join(cdi, "v.json"), []byte(
		`{"cdiVersion": "0.7.0", "kind": "vendor.test/thing", "devices": [{"name": "0", "containerEdits": {"env": ["THING=0"]}}]}`), 0o644))
	t.Run("socket", n.testSocket)
	t.Run("events", n.testEvents)
	t.Run("ends", n.testEnds)
	t.Run("adjust", n.testAdjust)
	t.Run("update", n.testUpdate)
	t.Run("unasked", n.testUnasked)
	t.Run("seen", n.testSeen)
	t.Run("evict", n.testEvict)
	t.Run("refuse", n.testRefuse)
	t.Run("restart", n.testRestart)
	t.Run("hang", n.testHang)
	t.Run("crash", n.testCrash)
	t.Run("once", n.testOnce)
	t.Run("policy", n.testPolicy)
}

// on is the node for a subtest.
func (n nriNode) on(t *testing.T) kit {
	k := n.kit
	k.T = t
	return k
}

const forever = "exec sleep 600"

func (n nriNode) testSocket(t *testing.T) {
	k := n.on(t)
	for path, want := range map[string]os.FileMode{n.socket: 0o600 | os.ModeSocket, filepath.Dir(n.socket): 0o700 | os.ModeDir} {
		fi, err := os.Lstat(path)
		k.must(err)
		if fi.Mode() != want {
			t.Errorf("%s has the mode %v, want %v", path, fi.Mode(), want)
		}
	}
	left, err := os.ReadDir(filepath.Dir(n.socket))
	k.must(err)
	if len(left) != 1 {
		t.Errorf("beside the socket there is %v", left)
	}
}

// testEvents: a pod's whole life, of containers that end in three ways.
func (n nriNode) testEvents(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	cfg := k.env.PodConfig("nri-events")
	id, err := k.env.Client.RunPod(k.ctx, cfg)
	k.must(err)
	k.wait(k.start(id, cfg, k.shell("ends", "exit 3")))
	p.await("StopContainer", "ends")
	runs := k.start(id, cfg, k.shell("runs", forever))
	_, err = k.runtime().UpdatePodSandboxResources(k.ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{
		PodSandboxId: id, Resources: &runtimeapi.LinuxContainerResources{CpuShares: 512},
	})
	k.must(err)
	_, err = k.runtime().UpdateContainerResources(k.ctx, &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: runs, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 256},
	})
	k.must(err)
	_, err = k.create(id, cfg, k.shell("never", forever))
	k.must(err)
	_, err = k.create(id, cfg, k.shell("bad", "", func(c *runtimeapi.ContainerConfig) { security(c).RunAsUsername = "nobody-here" }))
	k.refused(err, codes.InvalidArgument) // and is undone before plugins heard of it
	_, err = k.runtime().StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	k.must(err)
	ended := len(p.events("nri-events"))
	k.must(k.env.Client.RemovePod(k.ctx, id))

	all := p.events("nri-events")
	p.follows(all[:12], "RunPodSandbox CreateContainer(ends) PostCreateContainer(ends) StartContainer(ends) PostStartContainer(ends) StopContainer(ends)"+
		" CreateContainer(runs) PostCreateContainer(runs) StartContainer(runs) PostStartContainer(runs)"+
		" UpdatePodSandbox PostUpdatePodSandbox")
	p.follows(all[12:16], "UpdateContainer(runs) PostUpdateContainer(runs) CreateContainer(never) PostCreateContainer(never)")
	// The ends of two containers are in no order, and the pod's comes after them.
	stops := strings.Join(names(all[16:18]), " ")
	if stops != "StopContainer(runs) StopContainer(never)" && stops != "StopContainer(never) StopContainer(runs)" {
		t.Errorf("ends are %s", stops)
	}
	p.follows(all[18:ended], "StopPodSandbox")
	if removals := all[ended:]; len(removals) != 4 || removals[3].Event != "RemovePodSandbox" {
		t.Errorf("removals are %v", names(removals))
	}
	// The pod's network is there for plugins until it has been given back.
	for _, e := range all {
		if strings.HasSuffix(e.Event, "PodSandbox") && (e.NetNS == "") != (e.Event == "RemovePodSandbox") {
			t.Errorf("%s has the network namespace %q", e.Event, e.NetNS)
		}
	}
	if e := p.await("StopContainer", "ends"); e.State != "CONTAINER_STOPPED" {
		t.Errorf("an ended container is %s", e.State)
	}
	if e := p.await("PostStartContainer", "runs"); e.State != "CONTAINER_RUNNING" {
		t.Errorf("a started container is %s", e.State)
	}
}

// testEnds: a pod's end comes after those of its containers, which the sandbox took
// with it; also when all of them have waited for a plugin that is being told what
// there is, and go on at once, in no order.
func (n nriNode) testEnds(t *testing.T) {
	k, dir := n.on(t), t.TempDir()
	k.must(os.WriteFile(filepath.Join(dir, "orders"), []byte(`{"Synchronize": {"do": "linger"}}`), 0o644))
	id, pod := k.pod()
	const containers = 10
	for i := range containers {
		k.start(id, pod, k.shell(fmt.Sprint("c", i), forever))
	}
	p := n.pluginIn(t, dir) // it lingers now
	_, err := k.runtime().StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	k.must(err)
	ends := p.events(pod.Metadata.Name)
	if len(ends) != containers+1 || ends[containers].Event != "StopPodSandbox" {
		t.Errorf("ends are %v", names(ends))
	}
}

// testAdjust: what a plugin wishes is what the container has, and what the next
// event says.
func (n nriNode) testAdjust(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	const memory = 96 << 20
	dir := t.TempDir()
	k.must(os.WriteFile(filepath.Join(dir, "file"), []byte("of the plugin\n"), 0o644))
	id, pod := k.pod()
	p.order("CreateContainer", map[string]any{
		"env": map[string]string{"PLUGIN": "was here", "CHANGED": "by it"}, "unset": []string{"GONE"},
		"annotations": map[string]string{"plugin.test/note": "yes"},
		"mounts":      []map[string]any{{"destination": "/plugin", "source": dir, "type": "bind", "options": []string{"ro", "rbind"}}},
		"memory":      memory, "cdi": []string{"vendor.test/thing=0"},
	})
	c := k.shell("adjusted", `echo "$PLUGIN, $CHANGED, <$GONE>, $THING"; cat /plugin/file; touch /plugin/x || echo read-only; `+forever, func(c *runtimeapi.ContainerConfig) {
		c.Envs = []*runtimeapi.KeyValue{{Key: "CHANGED", Value: []byte("no")}, {Key: "GONE", Value: []byte("here")}}
	})
	cid := k.start(id, pod, c)
	k.wants(k.logHas(pod, c, "read-only"), "was here, by it, <>, 0\n", "of the plugin\n")
	if got := k.status(cid).GetResources().GetLinux().GetMemoryLimitInBytes(); got != memory {
		t.Errorf("memory limit is %d", got)
	}
	if e := p.await("PostCreateContainer", "adjusted"); e.Annotations["plugin.test/note"] != "yes" || e.Memory != memory {
		t.Errorf("told after the creation: %+v", e)
	}
	// The limit of the pod follows, so the kernel holds it, too.
	if got := (limitsKit{k}).groupMemory(id); got != memory+64<<20 {
		t.Errorf("the pod's cgroup has the limit %d", got)
	}
	// And the container that eats more than the plugin lets it is killed.
	p.noOrders()
	_, err := k.runtime().ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: cid, Cmd: []string{"/bin/sh", "-c", "head -c 140000000 /dev/zero | tail"}, Timeout: 30})
	k.must(err)
	if st := k.wait(cid); st.Reason != "OOMKilled" {
		t.Errorf("status = %v", st)
	}
}

// testUpdate: a plugin changes what an update is, and that of another container.
func (n nriNode) testUpdate(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	id, pod := k.pod()
	limited := func(c *runtimeapi.ContainerConfig) {
		c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 100 << 20, CpuShares: 100}
	}
	one, two := k.start(id, pod, k.shell("one", forever, limited)), k.start(id, pod, k.shell("two", forever, limited))
	p.order("UpdateContainer", map[string]any{"memory": 222 << 20, "updateMemory": map[string]int64{two: 333 << 20}})
	_, err := k.runtime().UpdateContainerResources(k.ctx, &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: one, Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 111 << 20, CpuShares: 200, OomScoreAdj: 7},
	})
	k.must(err)
	// The score is nothing that plugins are asked about.
	if r := k.status(one).GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 222<<20 || r.GetCpuShares() != 200 || r.GetOomScoreAdj() != 7 {
		t.Errorf("the updated one has %v", r)
	}
	if r := k.status(two).GetResources().GetLinux(); r.GetMemoryLimitInBytes() != 333<<20 || r.GetCpuShares() != 100 {
		t.Errorf("the other has %v", r)
	}
	if e := p.await("UpdateContainer", "one"); e.Memory != 111<<20 {
		t.Errorf("the plugin was asked about %d", e.Memory)
	}
	if e := p.await("PostUpdateContainer", "one"); e.Memory != 222<<20 {
		t.Errorf("the plugin was told of %d", e.Memory)
	}
	p.order("StopContainer", map[string]any{"updateMemory": map[string]int64{two: 444 << 20}})
	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: one})
	k.must(err)
	k.eventually("the update that came with an end is made", func() bool {
		return k.status(two).GetResources().GetLinux().GetMemoryLimitInBytes() == 444<<20
	})
}

// testSeen: a container that plugins are asked about is nobody's yet, and who has its id
// from a plugin can neither see nor start it. Its removal waits for its creation.
func (n nriNode) testSeen(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	id, pod := k.pod()
	p.order("CreateContainer", map[string]any{"do": "linger"})
	none := func(when string) {
		t.Helper()
		resp, err := k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: id}})
		k.must(err)
		status, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		k.must(err)
		if len(resp.Containers)+len(status.ContainersStatuses) != 0 {
			t.Errorf("%s there are %v and %v", when, resp.Containers, status.ContainersStatuses)
		}
	}
	begin := func(name string) (cid string, created chan error) {
		t.Helper()
		created = make(chan error, 1)
		go func() {
			_, err := k.create(id, pod, k.shell(name, forever))
			created <- err
		}()
		cid = p.await("CreateContainer", name).ID
		none("while a plugin is asked")
		return cid, created
	}
	cid, created := begin("seen")
	_, err := k.runtime().ContainerStatus(k.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: cid})
	k.refused(err, codes.NotFound)
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: cid})
	k.refused(err, codes.FailedPrecondition)
	k.must(<-created)
	if state := k.status(cid).State; state != runtimeapi.ContainerState_CONTAINER_CREATED {
		t.Errorf("it is %v", state)
	}
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: cid})
	k.must(err)
	_, err = k.runtime().RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: cid})
	k.must(err)
	// One that is removed meanwhile is created first.
	cid, created = begin("removed")
	_, err = k.runtime().RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: cid})
	k.must(err)
	k.must(<-created)
	none("after its removal")
	p.order("CreateContainer", map[string]any{"do": "fail"})
	_, err = k.create(id, pod, k.shell("refused", forever))
	k.refused(err, codes.FailedPrecondition)
	none("after a refusal")
}

// testUnasked: a plugin updates and evicts on its own.
func (n nriNode) testUnasked(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", forever))
	if a := p.ask(map[string]any{"memory": map[string]int64{cid: 123 << 20}}); a.Error != "" || len(a.Failed) != 0 {
		t.Errorf("answer %+v", a)
	}
	if got := k.status(cid).GetResources().GetLinux().GetMemoryLimitInBytes(); got != 123<<20 {
		t.Errorf("memory limit is %d", got)
	}
	if a := p.ask(map[string]any{"memory": map[string]int64{"nosuch": 1 << 20}}); !strings.Contains(a.Error, "code = NotFound") {
		t.Errorf("answer about an unknown container: %+v", a)
	}
	if a := p.ask(map[string]any{"evict": []string{cid}}); a.Error != "" {
		t.Errorf("answer %+v", a)
	}
	if st := k.wait(cid); st.ExitCode != 137 || !strings.Contains(st.Message, "a test wants it") {
		t.Errorf("status of an evicted container: %v", st)
	}
	p.await("StopContainer", "a")
	if a := p.ask(map[string]any{"evict": []string{cid}}); !strings.Contains(a.Error, "code = FailedPrecondition") {
		t.Errorf("answer about an ended container: %+v", a)
	}
}

// testEvict: a plugin makes room for a container that is being created, or updated.
func (n nriNode) testEvict(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	id, pod := k.pod()
	victim := k.start(id, pod, k.shell("victim", forever))
	p.order("CreateContainer", map[string]any{"container": "guest", "evict": []string{victim}})
	guest := k.start(id, pod, k.shell("guest", forever))
	if st := k.status(victim); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || !strings.Contains(st.Message, "evicted") {
		t.Errorf("status of the evicted container: %v", st)
	}
	last := k.start(id, pod, k.shell("last", forever))
	p.order("UpdateContainer", map[string]any{"evict": []string{guest}})
	_, err := k.runtime().UpdateContainerResources(k.ctx, &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: last, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 256},
	})
	k.must(err)
	if st := k.status(guest); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || !strings.Contains(st.Message, "evicted") {
		t.Errorf("status of the container that an update evicted: %v", st)
	}
}

// testRefuse: a plugin's no, and wishes that a sandbox cannot grant, fail the
// request with the reason, and nothing is left.
func (n nriNode) testRefuse(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	id, pod := k.pod()
	for wish, tc := range map[string]struct {
		order map[string]any
		words []string
	}{
		"no":           {map[string]any{"do": "fail"}, []string{"told to fail at CreateContainer"}},
		"hook":         {map[string]any{"hook": "/usr/bin/x"}, []string{"hook createRuntime /usr/bin/x", "not possible in a gVisor sandbox"}},
		"processes":    {map[string]any{"pids": 7}, []string{"limit of processes", "not possible in a sandbox"}},
		"device":       {map[string]any{"device": map[string]any{"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}}, []string{"/dev/kvm (c 10:232)", "not possible in a gVisor sandbox"}},
		"mount":        {map[string]any{"mounts": []map[string]any{{"destination": "/x", "source": "/nowhere", "type": "bind"}}}, []string{"/nowhere"}},
		"limit":        {map[string]any{"memory": -5}, []string{"memory limit"}},
		"other update": {map[string]any{"updateMemory": map[string]int64{"nosuch": 1}}, []string{"nosuch"}},
	} {
		p.order("CreateContainer", tc.order)
		_, err := k.create(id, pod, k.shell("refused", "true"))
		want := codes.FailedPrecondition
		switch wish {
		case "other update":
			want = codes.NotFound
		case "limit":
			want = codes.InvalidArgument
		}
		k.refused(err, want, append(tc.words, "NRI")...)
	}
	list, err := k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: id}})
	k.must(err)
	if len(list.Containers) != 0 {
		t.Errorf("containers are left: %v", list.Containers)
	}
	p.order("RunPodSandbox", map[string]any{"do": "fail"})
	_, err = k.env.Client.RunPod(k.ctx, k.env.PodConfig("nri-refused"))
	k.refused(err, codes.FailedPrecondition, "NRI", "told to fail")
	p.follows(p.events("nri-refused"), "RunPodSandbox StopPodSandbox RemovePodSandbox")
	p.order("StartContainer", map[string]any{"do": "fail"})
	cid, err := k.create(id, pod, k.shell("unstarted", forever))
	k.must(err)
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: cid})
	k.refused(err, codes.FailedPrecondition, "NRI", "told to fail")
	if st := k.status(cid); st.Reason != "StartError" {
		t.Errorf("status = %v", st)
	}
}

// testRestart: a new daemon tells a plugin of all pods, and of the containers that
// have not ended, and updates those that the plugin wants to.
func (n nriNode) testRestart(t *testing.T) {
	k, p := n.on(t), n.plugin(t)
	id, pod := k.pod()
	name := pod.Metadata.Name
	k.wait(k.start(id, pod, k.shell("ended", "true")))
	running := k.start(id, pod, k.shell("running", forever))
	_, err := k.create(id, pod, k.shell("created", forever))
	k.must(err)
	_, err = k.env.Restart(k.ctx)
	k.must(err)
	<-p.done // the stub ends with its connection
	dir := t.TempDir()
	k.must(os.WriteFile(filepath.Join(dir, "orders"), fmt.Appendf(nil, `{"Synchronize": {"updateMemory": {%q: %d}}}`, running, 111<<20), 0o644))
	p = n.pluginIn(t, dir)
	e := p.await("Synchronize", "")
	if fmt.Sprint(e.Pods) != fmt.Sprintf("[%s]", name) || fmt.Sprint(e.Containers) != "[running created]" {
		t.Errorf("synchronized with %v and %v", e.Pods, e.Containers)
	}
	k.eventually("the update that came with the registration is made", func() bool {
		return k.status(running).GetResources().GetLinux().GetMemoryLimitInBytes() == 111<<20
	})
	_, err = k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: running})
	k.must(err)
	p.await("StopContainer", "running")
}
