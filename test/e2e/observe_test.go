package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

func TestGetContainerEventsTellsTheLifeOfAPod(t *testing.T) {
	k := newKit(t)
	ctx, cancel := context.WithCancel(k.ctx)
	defer cancel()
	stream, err := k.runtime().GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	k.must(err)
	events := make(chan *runtimeapi.ContainerEventResponse, 100)
	go func() {
		defer close(events)
		for {
			ev, err := stream.Recv()
			if err != nil {
				return
			}
			events <- ev
		}
	}()
	time.Sleep(100 * time.Millisecond) // until the stream is subscribed
	pod := k.env.PodConfig("events")
	id, err := k.env.Client.RunPod(k.ctx, pod)
	k.must(err)
	cid := k.start(id, pod, k.shell("a", "exit 3"))
	k.wait(cid)
	k.must(k.env.Client.RemovePod(k.ctx, id))

	names := map[string]string{id: "pod", cid: "ctr"}
	var got []string
	timeout := time.After(limit)
	for len(got) < 8 {
		select {
		case ev := <-events:
			if names[ev.ContainerId] == "" {
				continue // of another test's pod
			}
			what := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(ev.ContainerEventType.String(), "CONTAINER_"), "_EVENT"))
			got = append(got, names[ev.ContainerId]+" "+what)
			if ev.PodSandboxStatus.GetId() != id || ev.CreatedAt == 0 {
				t.Errorf("event without its pod: %v", ev)
			}
			if got[len(got)-1] == "ctr stopped" {
				if len(ev.ContainersStatuses) != 1 || ev.ContainersStatuses[0].ExitCode != 3 {
					t.Errorf("the end without its status: %v", ev)
				}
			}
		case <-timeout:
			t.Fatalf("only %v", got)
		}
	}
	want := "[pod created pod started ctr created ctr started ctr stopped pod stopped ctr deleted pod deleted]"
	if fmt.Sprint(got) != want {
		t.Errorf("events:\n%v, want\n%s", got, want)
	}
}

func TestListPodSandboxAndContainersFilters(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) { p.Labels = map[string]string{"filter": "me", "other": "x"} })
	k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Metadata.Name, p.Labels = "second", map[string]string{"filter": "not me"}
	})
	run := k.start(id, pod, k.shell("runs", "exec sleep 600", func(c *runtimeapi.ContainerConfig) { c.Labels = map[string]string{"c": "1"} }))
	end := k.start(id, pod, k.shell("ends", "true"))
	k.wait(end)

	pods := func(f *runtimeapi.PodSandboxFilter) (ids []string) {
		resp, err := k.runtime().ListPodSandbox(k.ctx, &runtimeapi.ListPodSandboxRequest{Filter: f})
		k.must(err)
		for _, p := range resp.Items {
			ids = append(ids, p.Id)
		}
		return ids
	}
	containers := func(f *runtimeapi.ContainerFilter) (ids []string) {
		resp, err := k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{Filter: f})
		k.must(err)
		for _, c := range resp.Containers {
			ids = append(ids, c.Id)
		}
		return ids
	}
	for name, c := range map[string]struct {
		got  []string
		want []string
	}{
		"pod by label":      {pods(&runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"filter": "me"}}), []string{id}},
		"pod by two labels": {pods(&runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"filter": "me", "other": "y"}}), nil},
		"pod by id":         {pods(&runtimeapi.PodSandboxFilter{Id: id}), []string{id}},
		"pod by id and state": {pods(&runtimeapi.PodSandboxFilter{Id: id, State: &runtimeapi.PodSandboxStateValue{
			State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}}), nil},
		"container by pod": {containers(&runtimeapi.ContainerFilter{PodSandboxId: id}), []string{run, end}},
		"container by state": {containers(&runtimeapi.ContainerFilter{PodSandboxId: id, State: &runtimeapi.ContainerStateValue{
			State: runtimeapi.ContainerState_CONTAINER_EXITED}}), []string{end}},
		"container by label":  {containers(&runtimeapi.ContainerFilter{LabelSelector: map[string]string{"c": "1"}}), []string{run}},
		"container by prefix": {containers(&runtimeapi.ContainerFilter{Id: run[:20]}), []string{run}},
	} {
		if fmt.Sprint(c.got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

func TestContainerStatsOfAContainerThatWorks(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	busy := k.start(id, pod, k.shell("busy", "while :; do :; done"))
	idle := k.start(id, pod, k.shell("idle", "dd if=/dev/zero of=/file bs=1M count=8 2>/dev/null; head -c 33554432 /dev/zero > /dev/shm/x; echo ready; exec sleep 600"))
	k.logHas(pod, k.shell("idle", ""), "ready")
	time.Sleep(1500 * time.Millisecond)
	resp, err := k.runtime().ListContainerStats(k.ctx, &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{PodSandboxId: id}})
	k.must(err)
	byID := map[string]*runtimeapi.ContainerStats{}
	for _, s := range resp.Stats {
		byID[s.Attributes.Id] = s
	}
	if len(byID) != 2 {
		t.Fatalf("stats of %d containers", len(byID))
	}
	b, i := byID[busy], byID[idle]
	if b.GetCpu().GetUsageCoreNanoSeconds().GetValue() < i.GetCpu().GetUsageCoreNanoSeconds().GetValue() {
		t.Errorf("the busy container used less CPU than the idle one: %v, %v", b.Cpu, i.Cpu)
	}
	if got := b.GetCpu().GetUsageCoreNanoSeconds().GetValue(); got < uint64(200*time.Millisecond) {
		t.Errorf("the busy container used %v of CPU", time.Duration(got))
	}
	if got := i.GetWritableLayer().GetUsedBytes().GetValue(); got < 8<<20 {
		t.Errorf("the writable layer holds %d bytes, 8 MiB were written", got)
	}
	ps, err := k.runtime().PodSandboxStats(k.ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id})
	k.must(err)
	linux := ps.Stats.GetLinux()
	if linux.GetMemory().GetWorkingSetBytes().GetValue() < 32<<20 || linux.GetProcess().GetProcessCount().GetValue() < 2 ||
		linux.GetNetwork().GetDefaultInterface().GetName() != "eth0" || len(linux.Containers) != 2 {
		t.Errorf("pod stats = %v", ps.Stats)
	}
	list, err := k.runtime().ListPodSandboxStats(k.ctx, &runtimeapi.ListPodSandboxStatsRequest{Filter: &runtimeapi.PodSandboxStatsFilter{Id: id}})
	k.must(err)
	if len(list.Stats) != 1 {
		t.Errorf("%d pods", len(list.Stats))
	}
}

// TestReopenContainerLogAfterRotation as the kubelet does it: rename, then ask to reopen.
func TestReopenContainerLogAfterRotation(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	c := k.shell("a", `i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "line $i"; [ $((i % 100)) = 0 ] && sleep 0.02; done; echo end`)
	cid := k.start(id, pod, c)
	k.logHas(pod, c, "line 300\n")
	path := testenv.LogPath(pod, c)
	k.must(os.Rename(path, path+".1"))
	_, err := k.runtime().ReopenContainerLog(k.ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: cid})
	k.must(err)
	k.wait(cid)
	old, err := testenv.ReadLog(path + ".1")
	k.must(err)
	all := strings.Split(strings.TrimSpace(old+k.log(pod, c)), "\n")
	for i, line := range all[:len(all)-1] {
		if line != fmt.Sprintf("line %d", i+1) {
			t.Fatalf("line %d reads %q", i+1, line)
		}
	}
	if len(all) != 3001 {
		t.Errorf("%d lines", len(all))
	}
	_, err = k.runtime().ReopenContainerLog(k.ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: cid})
	k.refused(err, codes.FailedPrecondition, "not running")
}

func TestImageStatusAfterRemoveAndPull(t *testing.T) {
	k := newKit(t)
	images := k.env.Client.Image
	ref := k.env.Images["web"]
	st, err := images.ImageStatus(k.ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}, Verbose: true})
	k.must(err)
	if st.Image == nil || st.Image.Size == 0 || len(st.Image.RepoTags) != 1 || len(st.Image.RepoDigests) != 1 || st.Info["info"] == "" {
		t.Fatalf("status = %v", st)
	}
	// By digest, then without any name but the digest.
	digest := st.Image.RepoDigests[0]
	_, err = images.RemoveImage(k.ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	k.must(err)
	gone, err := images.ImageStatus(k.ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	k.must(err)
	if gone.Image != nil {
		t.Errorf("a removed image has a status: %v", gone)
	}
	pulled, err := images.PullImage(k.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: digest}})
	k.must(err)
	if pulled.ImageRef != st.Image.Id {
		t.Errorf("pulled %s, want %s", pulled.ImageRef, st.Image.Id)
	}
	_, err = images.PullImage(k.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	k.must(err)
	k.must(k.env.MarkBaseline()) // its layers have other names now
	list, err := images.ListImages(k.ctx, &runtimeapi.ListImagesRequest{})
	k.must(err)
	if len(list.Images) < 3 {
		t.Errorf("%d images", len(list.Images))
	}
	info, err := images.ImageFsInfo(k.ctx, &runtimeapi.ImageFsInfoRequest{})
	k.must(err)
	if len(info.ImageFilesystems) != 1 || info.ImageFilesystems[0].UsedBytes.GetValue() == 0 {
		t.Errorf("info = %v", info)
	}
	// Idempotent, and clear where it is not.
	_, err = images.RemoveImage(k.ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "127.0.0.1:1/none:1"}})
	k.must(err)
	for name, c := range map[string]struct {
		image string
		code  codes.Code
	}{
		"empty":        {"", codes.InvalidArgument},
		"bad":          {"A B", codes.InvalidArgument},
		"unknown":      {k.env.Registry + "/test/none:1", codes.NotFound},
		"out of reach": {"127.0.0.1:1/x:1", codes.Unavailable},
	} {
		_, err := images.PullImage(k.ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: c.image}})
		if err == nil {
			t.Errorf("%s was pulled", name)
		}
		k.refused(err, c.code)
	}
	_, err = images.ImageStatus(k.ctx, &runtimeapi.ImageStatusRequest{})
	k.refused(err, codes.InvalidArgument)
}

func TestStatusAndConfig(t *testing.T) {
	k := newKit(t)
	st, err := k.runtime().Status(k.ctx, &runtimeapi.StatusRequest{Verbose: true})
	k.must(err)
	for _, c := range st.Status.Conditions {
		if !c.Status {
			t.Errorf("not ready: %v", c)
		}
	}
	if len(st.RuntimeHandlers) < 2 || st.Info["config"] == "" {
		t.Errorf("status = %v", st)
	}
	cfg, err := k.runtime().RuntimeConfig(k.ctx, &runtimeapi.RuntimeConfigRequest{})
	k.must(err)
	if cfg.Linux == nil {
		t.Errorf("config = %v", cfg)
	}
	v, err := k.runtime().Version(k.ctx, &runtimeapi.VersionRequest{})
	k.must(err)
	if v.RuntimeName != "cri-sandbox" || v.RuntimeApiVersion != "v1" {
		t.Errorf("version = %v", v)
	}
}
