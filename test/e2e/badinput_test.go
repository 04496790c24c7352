package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// nodeOptions are those of a node of a test's own.
var nodeOptions = testenv.Options{DaemonArgs: []string{"--log-level", "2"}}

func TestRunPodSandboxBadRequests(t *testing.T) {
	k := newKit(t)
	for name, c := range map[string]struct {
		change func(*runtimeapi.RunPodSandboxRequest)
		code   codes.Code
		words  []string
	}{
		"no config":   {func(r *runtimeapi.RunPodSandboxRequest) { r.Config = nil }, codes.InvalidArgument, nil},
		"no metadata": {func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata = nil }, codes.InvalidArgument, []string{"metadata"}},
		"no name":     {func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Metadata.Name = "" }, codes.InvalidArgument, []string{"name"}},
		"handler":     {func(r *runtimeapi.RunPodSandboxRequest) { r.RuntimeHandler = "kata" }, codes.InvalidArgument, []string{"kata", "gvisor"}},
		"bad port": {func(r *runtimeapi.RunPodSandboxRequest) {
			r.Config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 99999, HostPort: 1}}
		}, codes.InvalidArgument, []string{"99999"}},
		"sysctl": {func(r *runtimeapi.RunPodSandboxRequest) {
			r.Config.Linux.Sysctls = map[string]string{"net.core.somaxconn": "9"}
		}, codes.FailedPrecondition, []string{"net.core.somaxconn", "not possible in a gVisor sandbox"}},
		"long hostname": {func(r *runtimeapi.RunPodSandboxRequest) { r.Config.Hostname = strings.Repeat("h", 65) }, codes.InvalidArgument, nil},
		"host pid": {func(r *runtimeapi.RunPodSandboxRequest) {
			r.Config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_NODE}}
		}, codes.FailedPrecondition, []string{"not possible in a gVisor sandbox"}},
		"privileged": {func(r *runtimeapi.RunPodSandboxRequest) {
			r.Config.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{Privileged: true}
		}, codes.FailedPrecondition, []string{"not possible in a gVisor sandbox"}},
		"bandwidth": {func(r *runtimeapi.RunPodSandboxRequest) {
			r.Config.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "much"}
		}, codes.InvalidArgument, []string{"much"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := k
			k.T = t
			req := &runtimeapi.RunPodSandboxRequest{Config: k.env.PodConfig("bad")}
			c.change(req)
			resp, err := k.runtime().RunPodSandbox(k.ctx, req)
			if err == nil {
				k.env.Client.Note(resp.PodSandboxId)
				k.must(k.env.Client.RemovePod(k.ctx, resp.PodSandboxId))
			}
			k.refused(err, c.code, c.words...)
		})
	}
}

func TestCreateContainerBadRequests(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	file := filepath.Join(t.TempDir(), "file")
	k.must(os.WriteFile(file, nil, 0o644))
	for name, c := range map[string]struct {
		change func(*runtimeapi.ContainerConfig)
		code   codes.Code
		words  []string
	}{
		"no metadata":   {func(c *runtimeapi.ContainerConfig) { c.Metadata = nil }, codes.InvalidArgument, []string{"metadata"}},
		"no image":      {func(c *runtimeapi.ContainerConfig) { c.Image = nil }, codes.InvalidArgument, []string{"image"}},
		"unknown image": {func(c *runtimeapi.ContainerConfig) { c.Image.Image = "none/such:1" }, codes.NotFound, []string{"none/such"}},
		"bad image":     {func(c *runtimeapi.ContainerConfig) { c.Image.Image = "UPPER/Case@" }, codes.InvalidArgument, nil},
		"relative mount": {func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "x/y", HostPath: "/tmp"}}
		}, codes.InvalidArgument, []string{"x/y"}},
		"mount below a file": {func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: file + "/below"}}
		}, codes.FailedPrecondition, []string{file}},
		"log path escapes": {func(c *runtimeapi.ContainerConfig) { c.LogPath = "../../etc/cron.d/x" }, codes.InvalidArgument, []string{"log"}},
		"unknown user":     {func(c *runtimeapi.ContainerConfig) { security(c).RunAsUsername = "nobody-here" }, codes.InvalidArgument, []string{"nobody-here"}},
		"privileged":       {func(c *runtimeapi.ContainerConfig) { security(c).Privileged = true }, codes.InvalidArgument, []string{"privileged"}},
		"bidirectional": {func(c *runtimeapi.ContainerConfig) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/x", HostPath: "/tmp", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL}}
		}, codes.FailedPrecondition, []string{"not possible in a gVisor sandbox"}},
		"seccomp profile": {func(c *runtimeapi.ContainerConfig) {
			security(c).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "/no/such.json"}
		}, codes.InvalidArgument, []string{"/no/such.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := k
			k.T = t
			cfg := k.shell("bad", "true")
			c.change(cfg)
			_, err := k.create(id, pod, cfg)
			k.refused(err, c.code, c.words...)
		})
	}
	list, err := k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: id}})
	k.must(err)
	if len(list.Containers) > 0 {
		t.Errorf("refused containers are listed: %v", list.Containers)
	}
}

func TestRequestsOfUnknownIDs(t *testing.T) {
	k := newKit(t)
	rt := k.runtime()
	const none = "ffffffffffff"
	_, err := rt.PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: none})
	k.refused(err, codes.NotFound, none)
	_, err = rt.ContainerStatus(k.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: none})
	k.refused(err, codes.NotFound, none)
	_, err = rt.StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: none})
	k.refused(err, codes.NotFound, none)
	_, err = rt.ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: none, Cmd: []string{"true"}})
	k.refused(err, codes.NotFound, none)
	_, err = rt.ContainerStats(k.ctx, &runtimeapi.ContainerStatsRequest{ContainerId: none})
	k.refused(err, codes.NotFound, none)
	_, err = rt.ReopenContainerLog(k.ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: none})
	k.refused(err, codes.NotFound, none)
	_, err = rt.CreateContainer(k.ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: none, Config: k.shell("a", "true")})
	k.refused(err, codes.NotFound, none)
	_, err = rt.StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: ""})
	k.refused(err, codes.InvalidArgument)
	// CRI: these are idempotent, so an id that is gone is no error.
	_, err = rt.StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: none})
	k.must(err)
	_, err = rt.RemovePodSandbox(k.ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: none})
	k.must(err)
	_, err = rt.RemoveContainer(k.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: none})
	k.must(err)
	_, err = rt.StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: none})
	k.must(err)
}

func TestCheckpointContainerAndPodAreUnimplemented(t *testing.T) {
	k := newKit(t)
	_, err := k.runtime().CheckpointContainer(k.ctx, &runtimeapi.CheckpointContainerRequest{})
	k.refused(err, codes.Unimplemented, "CheckpointContainer")
	_, err = k.runtime().CheckpointPod(k.ctx, &runtimeapi.CheckpointPodRequest{})
	k.refused(err, codes.Unimplemented, "CheckpointPod")
}

func TestRequestsInTheWrongOrder(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	created, err := k.create(id, pod, k.shell("created", "exec sleep 600"))
	k.must(err)
	_, err = k.runtime().ExecSync(k.ctx, &runtimeapi.ExecSyncRequest{ContainerId: created, Cmd: []string{"true"}})
	k.refused(err, codes.FailedPrecondition, "not running")
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: created})
	k.must(err)
	_, err = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: created})
	k.refused(err, codes.FailedPrecondition, "running")
	_, err = k.create(id, pod, k.shell("created", "exec sleep 600"))
	k.refused(err, codes.AlreadyExists, created)
	_, err = k.runtime().StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	k.must(err)
	_, err = k.create(id, pod, k.shell("late", "true"))
	k.refused(err, codes.FailedPrecondition, "not ready")
}

// TestRunPodSandboxAgainGetsTheSamePod: the kubelet repeats what timed out.
func TestRunPodSandboxAgainGetsTheSamePod(t *testing.T) {
	k := newKit(t)
	cfg := k.env.PodConfig("again")
	type answer struct {
		id  string
		err error
	}
	answers := make(chan answer)
	short, cancel := context.WithTimeout(k.ctx, 5*time.Millisecond)
	defer cancel()
	_, err := k.runtime().RunPodSandbox(short, &runtimeapi.RunPodSandboxRequest{Config: cfg})
	if err == nil {
		t.Fatal("a pod in 5 ms")
	}
	for range 3 {
		go func() {
			resp, err := k.runtime().RunPodSandbox(k.ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg})
			answers <- answer{resp.GetPodSandboxId(), err}
		}()
	}
	first := <-answers
	k.must(first.err)
	k.env.Client.Note(first.id)
	for range 2 {
		if a := <-answers; a != first {
			t.Errorf("another answer: %v, %v", a, first)
		}
	}
	late, err := k.env.Client.RunPod(k.ctx, cfg)
	k.must(err)
	if late != first.id {
		t.Errorf("a repetition after the end made %s beside %s", late, first.id)
	}
	list, err := k.runtime().ListPodSandbox(k.ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: cfg.Labels}})
	k.must(err)
	n := 0
	for _, p := range list.Items {
		if p.Metadata.Uid == cfg.Metadata.Uid {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d pods of one identity", n)
	}
	k.must(k.env.Client.RemovePod(k.ctx, first.id))
}

func TestDaemonOnTheRootOfAnotherIsRefused(t *testing.T) {
	k := newKit(t)
	out, err := exec.CommandContext(k.ctx, filepath.Join(k.env.Repo, "bin", "cri-sandbox"), k.env.ServeArgs()...).CombinedOutput()
	if err == nil {
		t.Fatal("it ran")
	}
	k.wants(string(out), "another daemon owns")
}

func TestRecordsThatAreCorruptAreSetAside(t *testing.T) {
	k := ownNode(t, nodeOptions)
	good, err := k.env.Client.RunPod(k.ctx, k.env.PodConfig("good"))
	k.must(err)
	cfg := k.env.PodConfig("bad")
	bad, err := k.env.Client.RunPod(k.ctx, cfg)
	k.must(err)
	k.must(k.env.Kill())
	k.must(os.WriteFile(filepath.Join(k.env.Root, "pods", bad, "pod.json"), []byte("{"), 0o600))
	_, err = k.env.Start(k.ctx)
	k.must(err)
	_, err = k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: bad})
	k.refused(err, codes.NotFound)
	resp, err := k.runtime().PodSandboxStatus(k.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: good})
	k.must(err)
	if resp.Status.State != runtimeapi.PodSandboxState_SANDBOX_READY {
		t.Errorf("the other pod: %v", resp.Status)
	}
	k.wants(readFile(k, k.env.LogFile()), "set aside")
	k.must(k.env.Client.RemovePod(k.ctx, good))
	k.must(os.RemoveAll(filepath.Join(k.env.Root, "pods", ".damaged")))
	k.must(k.env.Audit(k.ctx))
}

func TestCNIPluginThatPrintsGarbage(t *testing.T) {
	k := ownNode(t, nodeOptions)
	conf := onlyConf(k)
	k.must(os.WriteFile(filepath.Join(k.env.CNIBinDir, "garbage"), []byte("#!/bin/sh\necho rubbish\n"), 0o755))
	t.Cleanup(func() { os.Remove(filepath.Join(k.env.CNIBinDir, "garbage")) })
	k.must(os.WriteFile(conf, []byte(`{"cniVersion":"1.0.0","name":"garbage","plugins":[{"type":"garbage"}]}`), 0o644))
	_, err := k.runtime().RunPodSandbox(k.ctx, &runtimeapi.RunPodSandboxRequest{Config: k.env.PodConfig("garbage")})
	if err == nil {
		t.Fatal("it ran")
	}
	k.wants(err.Error(), "garbage", "rubbish")
}

func TestStatusNetworkReadyFollowsTheDirectory(t *testing.T) {
	k := ownNode(t, testenv.Options{NoNetwork: true})
	condition := func() *runtimeapi.RuntimeCondition {
		resp, err := k.runtime().Status(k.ctx, &runtimeapi.StatusRequest{})
		k.must(err)
		for _, c := range resp.Status.Conditions {
			if c.Type == runtimeapi.NetworkReady {
				return c
			}
		}
		t.Fatal("no NetworkReady")
		return nil
	}
	if c := condition(); c.Status || !strings.Contains(c.Message, k.env.CNIConfDir) {
		t.Errorf("without a configuration: %v", c)
	}
	_, err := k.runtime().RunPodSandbox(k.ctx, &runtimeapi.RunPodSandboxRequest{Config: k.env.PodConfig("none")})
	k.refused(err, codes.Unavailable, k.env.CNIConfDir)
	k.must(k.env.WriteNetwork())
	for deadline := time.Now().Add(10 * time.Second); !condition().Status; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("with a configuration: %v", condition())
		}
	}
	k.pod()
}

func onlyConf(k kit) string {
	k.Helper()
	entries, err := os.ReadDir(k.env.CNIConfDir)
	k.must(err)
	if len(entries) != 1 {
		k.Fatalf("%d network configurations", len(entries))
	}
	return filepath.Join(k.env.CNIConfDir, entries[0].Name())
}
