package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// busyPod runs a pod with a container that has 80 MiB and has used some CPU, and
// a web server that has answered. It returns the ids of the pod and of the first.
func (k kit) busyPod() (podID, eaterID string, cfg *runtimeapi.PodSandboxConfig) {
	k.Helper()
	podID, cfg = k.pod()
	eater := k.shell("eater", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; "+eat(80), withResources(
		&runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 200 * mib, CpuQuota: 90000, CpuPeriod: 100000, CpuShares: 333}))
	eaterID = k.start(podID, cfg, eater)
	web := testenv.ContainerConfig("web", k.env.Images["web"])
	web.Envs = []*runtimeapi.KeyValue{{Key: "PORT", Value: []byte("8080")}}
	k.start(podID, cfg, web)
	ip, err := k.env.Client.PodIP(k.ctx, podID)
	k.must(err)
	get(k, "http://"+net.JoinHostPort(ip, "8080"))
	k.logHas(cfg, eater, "eaten")
	return podID, eaterID, cfg
}

func TestContainerStatsAndPodSandboxStatsTellWhatWasUsed(t *testing.T) {
	k := newKit(t)
	id, eater, _ := k.busyPod()
	cs, err := k.runtime().ContainerStats(k.ctx, &runtimeapi.ContainerStatsRequest{ContainerId: eater})
	k.must(err)
	mem, cpu := cs.Stats.GetMemory(), cs.Stats.GetCpu()
	if used := mem.GetUsageBytes().GetValue(); used < 80*mib || used > 140*mib || mem.GetAvailableBytes().GetValue() != 200*mib-used {
		t.Errorf("80 MiB in use of 200 are reported as %v", mem)
	}
	if mem.Timestamp == 0 || cpu.Timestamp == 0 || cpu.GetUsageCoreNanoSeconds().GetValue() == 0 {
		t.Errorf("CPU use %v", cpu)
	}

	ps, err := k.runtime().PodSandboxStats(k.ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: id})
	k.must(err)
	linux := ps.Stats.GetLinux()
	if linux.GetMemory().GetPageFaults().GetValue() == 0 || linux.GetMemory().GetUsageBytes().GetValue() < 80*mib || linux.GetMemory().GetWorkingSetBytes().GetValue() < 80*mib {
		t.Errorf("memory of the pod: %v", linux.GetMemory())
	}
	if n := linux.GetProcess().GetProcessCount().GetValue(); n < 3 || n > 100 { // awk, its shell, the server and its threads
		t.Errorf("%d processes in the pod", n)
	}
	eth := linux.GetNetwork().GetDefaultInterface()
	if eth.GetName() != "eth0" || eth.GetRxBytes().GetValue() == 0 || eth.GetTxBytes().GetValue() == 0 || len(linux.GetNetwork().GetInterfaces()) != 1 {
		t.Errorf("network of the pod: %v", linux.GetNetwork())
	}
	if len(linux.GetContainers()) != 2 {
		t.Errorf("%d containers", len(linux.GetContainers()))
	}
	_, err = k.runtime().PodSandboxStats(k.ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: "ffffffffffff"})
	k.refused(err, codes.NotFound, "ffffffffffff")
}

// described indexes metrics by name and labels, and checks that the descriptors
// told of them.
type described struct {
	k     kit
	keys  map[string][]string
	value map[string]uint64
}

func (d described) take(metrics []*runtimeapi.Metric) {
	for _, m := range metrics {
		keys, ok := d.keys[m.Name]
		if !ok || len(keys) != len(m.LabelValues) {
			d.k.Errorf("metric %v; its descriptor has the labels %v", m, keys)
			continue
		}
		var labels []string
		for i, key := range keys {
			if key != "id" && key != "name" && key != "image" {
				labels = append(labels, key+"="+m.LabelValues[i])
			}
		}
		key := fmt.Sprint(m.Name, labels)
		if _, twice := d.value[key]; twice {
			d.k.Errorf("%s comes twice", key)
		}
		d.value[key] = m.GetValue().GetValue()
		if m.Timestamp == 0 {
			d.k.Errorf("%s is of no time", key)
		}
	}
}

// within checks the value of one metric.
func (d described) within(name, container, pod string, low, high uint64, more ...string) {
	d.k.Helper()
	labels := append([]string{"container=" + container, "namespace=default", "pod=" + pod}, more...)
	v, ok := d.value[fmt.Sprint(name, labels)]
	if !ok || v < low || v > high {
		d.k.Errorf("%s%v is %d (there: %v), want %d to %d", name, labels, v, ok, low, high)
	}
}

func TestListPodSandboxMetricsOfPodsAndContainers(t *testing.T) {
	k := newKit(t)
	id, eater, cfg := k.busyPod()
	desc, err := k.runtime().ListMetricDescriptors(k.ctx, &runtimeapi.ListMetricDescriptorsRequest{})
	k.must(err)
	d := described{k: k, keys: map[string][]string{}, value: map[string]uint64{}}
	for _, m := range desc.Descriptors {
		d.keys[m.Name] = m.LabelKeys
	}
	list, err := k.runtime().ListPodSandboxMetrics(k.ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
	k.must(err)
	var found *runtimeapi.PodSandboxMetrics
	for _, p := range list.PodMetrics {
		if p.PodSandboxId == id {
			found = p
		}
	}
	if found == nil || len(found.ContainerMetrics) != 2 {
		t.Fatalf("metrics of the pod: %v", found)
	}
	d.take(found.Metrics)
	for _, c := range found.ContainerMetrics {
		d.take(c.Metrics)
	}

	pod, now := cfg.Metadata.Name, uint64(time.Now().Unix())
	const much = 1 << 50
	for _, name := range []string{"container_memory_usage_bytes", "container_memory_working_set_bytes"} {
		d.within(name, "", pod, 80*mib, 400*mib)
		d.within(name, "eater", pod, 80*mib, 140*mib)
		d.within(name, "web", pod, 1, 60*mib)
	}
	d.within("container_memory_max_usage_bytes", "", pod, 80*mib, 400*mib)
	d.within("container_memory_max_usage_bytes", "eater", pod, 80*mib, 140*mib)
	d.within("container_memory_failures_total", "", pod, 1, much, "failure_type=pgfault", "scope=hierarchy")
	d.within("container_memory_rss", "eater", pod, 80*mib, 140*mib)
	d.within("container_cpu_usage_seconds_total", "", pod, 0, 600)
	d.within("container_cpu_usage_seconds_total", "eater", pod, 0, 600)
	d.within("container_cpu_cfs_periods_total", "", pod, 0, much)
	d.within("container_oom_events_total", "", pod, 0, 0)
	d.within("container_oom_events_total", "eater", pod, 0, 0)
	d.within("container_processes", "", pod, 3, 100)
	d.within("container_processes", "eater", pod, 1, 5)
	d.within("container_threads", "eater", pod, 1, 5)
	d.within("container_file_descriptors", "eater", pod, 3, 40)
	d.within("container_sockets", "eater", pod, 0, 0)
	d.within("container_sockets", "web", pod, 1, 40)
	d.within("container_file_descriptors", "", pod, 6, 100)
	d.within("container_sockets", "", pod, 1, 40)
	d.within("container_ulimits_soft", "eater", pod, 1<<20, 1<<20, "ulimit=max_open_files")
	d.within("container_last_seen", "eater", pod, now-600, now+600)
	d.within("container_start_time_seconds", "eater", pod, now-600, now+600)
	d.within("container_spec_memory_limit_bytes", "eater", pod, 200*mib, 200*mib)
	d.within("container_spec_cpu_quota", "eater", pod, 90000, 90000)
	d.within("container_spec_cpu_period", "eater", pod, 100000, 100000)
	d.within("container_spec_cpu_shares", "eater", pod, 333, 333)
	d.within("container_fs_usage_bytes", "eater", pod, 0, mib, "device=/")
	d.within("container_fs_limit_bytes", "eater", pod, mib, 1<<62, "device=/")
	for _, direction := range []string{"receive", "transmit"} {
		d.within("container_network_"+direction+"_bytes_total", "", pod, 100, much, "interface=eth0")
		d.within("container_network_"+direction+"_packets_total", "", pod, 3, much, "interface=eth0")
		d.within("container_network_"+direction+"_errors_total", "", pod, 0, much, "interface=eth0")
		d.within("container_network_"+direction+"_packets_dropped_total", "", pod, 0, much, "interface=eth0")
	}

	streamed := collect(k, func() (grpc.ServerStreamingClient[runtimeapi.StreamPodSandboxMetricsResponse], error) {
		return k.runtime().StreamPodSandboxMetrics(k.ctx, &runtimeapi.StreamPodSandboxMetricsRequest{})
	}, (*runtimeapi.StreamPodSandboxMetricsResponse).GetPodSandboxMetrics, (*runtimeapi.PodSandboxMetrics).GetPodSandboxId)
	if !strings.Contains(fmt.Sprint(streamed), id) {
		t.Errorf("the stream has the pods %v", streamed)
	}
	out, err := k.env.Crictl(k.ctx, "metricsp")
	k.must(err)
	k.wants(out, eater, "container_memory_working_set_bytes")
	out, err = k.env.Crictl(k.ctx, "statsp", id)
	k.must(err)
	k.wants(out, id[:13])
	out, err = k.env.Crictl(k.ctx, "stats", eater)
	k.must(err)
	k.wants(out, eater[:13])
}

func TestListPodSandboxMetricsCountsAKillForMemory(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	greedy := k.start(id, pod, k.shell("greedy", eat(2000), withResources(memory(64))))
	k.wait(greedy)
	list, err := k.runtime().ListPodSandboxMetrics(k.ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
	k.must(err)
	for _, p := range list.PodMetrics {
		for _, c := range p.ContainerMetrics {
			for _, m := range c.Metrics {
				if c.ContainerId == greedy && m.Name == "container_oom_events_total" && m.GetValue().GetValue() == 1 {
					return
				}
			}
		}
	}
	t.Errorf("no kill is counted in %v", list)
}
