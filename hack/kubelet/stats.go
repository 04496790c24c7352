package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func parseAddr(s string) netip.Addr {
	a, _ := netip.ParseAddr(s) // the zero Addr is in no subnet
	return a
}

// usage is what the walk reads of /stats/summary.
type usage struct {
	CPU     *struct{ UsageNanoCores, UsageCoreNanoSeconds *uint64 }
	Memory  *struct{ UsageBytes, WorkingSetBytes, RSSBytes, PageFaults *uint64 }
	Rootfs  *struct{ UsedBytes, CapacityBytes *uint64 }
	Network *struct {
		Name             string
		RxBytes, TxBytes *uint64
	}
}

type podUsage struct {
	PodRef struct{ Name string }
	usage
	Containers []struct {
		Name string
		usage
	}
	Volume       []struct{ Name string }
	ProcessStats *struct {
		ProcessCount *uint64 `json:"process_count"`
	} `json:"process_stats"`
	EphemeralStorage *struct{ UsedBytes *uint64 } `json:"ephemeral-storage"`
}

func known(name string, numbers ...*uint64) error {
	for i, n := range numbers {
		if n == nil || *n == 0 {
			return fmt.Errorf("%s: number %d is absent or 0", name, i+1)
		}
	}
	return nil
}

// complete says what is missing for the pod app.
func (p *podUsage) complete() error {
	switch {
	case p.CPU == nil || p.Memory == nil || p.Network == nil || p.ProcessStats == nil || p.EphemeralStorage == nil:
		return errors.New("CPU, memory, network, processes or storage of the pod is missing")
	case len(p.Containers) != 3 || len(p.Volume) < 3:
		return fmt.Errorf("%d containers and %d volumes", len(p.Containers), len(p.Volume))
	case p.Network.Name != "eth0":
		return fmt.Errorf("the interface is %q", p.Network.Name)
	}
	errs := []error{
		known("CPU of the pod", p.CPU.UsageNanoCores, p.CPU.UsageCoreNanoSeconds),
		known("memory of the pod", p.Memory.UsageBytes, p.Memory.WorkingSetBytes, p.Memory.RSSBytes),
		known("network", p.Network.RxBytes, p.Network.TxBytes),
		known("processes", p.ProcessStats.ProcessCount),
	}
	for _, c := range p.Containers {
		if c.CPU == nil || c.Memory == nil || c.Rootfs == nil {
			errs = append(errs, fmt.Errorf("CPU, memory or rootfs of container %s is missing", c.Name))
			continue
		}
		errs = append(errs, known("CPU of "+c.Name, c.CPU.UsageCoreNanoSeconds), known("memory of "+c.Name, c.Memory.WorkingSetBytes),
			known("rootfs of "+c.Name, c.Rootfs.CapacityBytes, c.Rootfs.UsedBytes))
	}
	return errors.Join(errs...)
}

func (w *walk) summary(ctx context.Context) (string, error) {
	var found *podUsage
	// The kubelet measures volumes in the background, and a rate takes two looks.
	err := poll(ctx, func() error {
		text, err := w.kubelet.get(ctx, "/stats/summary", nil)
		if err != nil {
			return err
		}
		var s struct{ Pods []podUsage }
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return fatal{fmt.Errorf("decode summary: %w", err)}
		}
		i := slices.IndexFunc(s.Pods, func(p podUsage) bool { return p.PodRef.Name == "app-"+nodeName })
		if i < 0 {
			return errors.New("the pod is not in the summary")
		}
		found = &s.Pods[i]
		return found.complete()
	})
	if err != nil {
		b, _ := json.MarshalIndent(found, "", " ")
		return string(b), err
	}
	return fmt.Sprintf("app: %d millicores, working set %d MiB, %d processes, %s received %d and sent %d bytes",
		*found.CPU.UsageNanoCores/1e6, *found.Memory.WorkingSetBytes>>20, *found.ProcessStats.ProcessCount,
		found.Network.Name, *found.Network.RxBytes, *found.Network.TxBytes), nil
}

// metrics looks for the series that dashboards of Kubernetes are made from.
func (w *walk) metrics(ctx context.Context) (string, error) {
	text, err := w.kubelet.get(ctx, "/metrics/cadvisor", nil)
	if err != nil {
		return "", err
	}
	pod := `namespace="default",pod="app-` + nodeName + `"`
	var missing []string
	for _, name := range []string{
		"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_memory_rss",
		"container_memory_usage_bytes", "container_network_receive_bytes_total", "container_network_transmit_bytes_total",
		"container_fs_usage_bytes", "container_spec_memory_limit_bytes", "container_oom_events_total",
		"container_processes", "container_threads", "container_start_time_seconds",
	} {
		if !hasSeries(text, name, pod) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("/metrics/cadvisor has no %s for the pod; it has\n%s", strings.Join(missing, ", "), grep(text, pod))
	}
	resource, err := w.kubelet.get(ctx, "/metrics/resource", nil)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes"} {
		if !hasSeries(resource, name, pod) {
			return resource, fmt.Errorf("/metrics/resource has no %s for the pod", name)
		}
	}
	return fmt.Sprintf("%d series of the pod", strings.Count(grep(text, pod), "\n")), nil
}

func hasSeries(text, name, labels string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, labels) {
			return true
		}
	}
	return false
}

func grep(text, words string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, words) {
			out.WriteString(line)
		}
	}
	return out.String()
}
