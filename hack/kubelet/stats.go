package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// usage is a part of what /stats/summary says.
type usage map[string]any

// number finds one by its path, such as memory.rssBytes; 0 when it is absent.
func (u usage) number(path string) float64 {
	at, rest, deeper := strings.Cut(path, ".")
	if deeper {
		below, _ := u[at].(map[string]any)
		return usage(below).number(rest)
	}
	n, _ := u[at].(float64)
	return n
}

// summary is what the kubelet reads of the pod app: all but what its volumes hold comes
// from the daemon's statistics.
type summary struct {
	Pods []struct {
		PodRef     struct{ Name string }
		Network    struct{ Name string }
		Containers []usage
		Volume     []usage
	}
}

// known checks that none of the numbers is absent or 0.
func known(of string, u usage, paths ...string) error {
	for _, path := range paths {
		if u.number(path) == 0 {
			return fmt.Errorf("%s of %s is absent or 0", path, of)
		}
	}
	return nil
}

// appSummary says what is missing of the pod app.
func appSummary(text string) error {
	var s summary
	var all struct{ Pods []usage }
	if err := errors.Join(json.Unmarshal([]byte(text), &s), json.Unmarshal([]byte(text), &all)); err != nil {
		return fatal{fmt.Errorf("decode summary: %w", err)}
	}
	for i, p := range s.Pods {
		if p.PodRef.Name != "app-"+nodeName {
			continue
		}
		if len(p.Containers) != 3 || len(p.Volume) < 3 || p.Network.Name != "eth0" {
			return fmt.Errorf("%d containers, %d volumes, interface %q", len(p.Containers), len(p.Volume), p.Network.Name)
		}
		errs := []error{known("the pod", all.Pods[i], "cpu.usageNanoCores", "cpu.usageCoreNanoSeconds", "memory.usageBytes", "memory.workingSetBytes",
			"memory.rssBytes", "network.rxBytes", "network.txBytes", "process_stats.process_count", "ephemeral-storage.usedBytes")}
		for _, c := range p.Containers {
			errs = append(errs, known(fmt.Sprint("container ", c["name"]), c, "cpu.usageCoreNanoSeconds", "memory.workingSetBytes", "rootfs.capacityBytes", "rootfs.usedBytes"))
		}
		return errors.Join(errs...)
	}
	return errors.New("the pod is not in the summary")
}

// series are those that dashboards of Kubernetes are made from.
var series = map[string][]string{
	"/metrics/cadvisor": {
		"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_memory_rss",
		"container_memory_usage_bytes", "container_network_receive_bytes_total", "container_network_transmit_bytes_total",
		"container_fs_usage_bytes", "container_spec_memory_limit_bytes", "container_oom_events_total",
		"container_processes", "container_threads", "container_start_time_seconds",
	},
	"/metrics/resource": {
		"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes",
	},
}

func (w *walk) stats(ctx context.Context) (string, error) {
	// The kubelet measures volumes in the background, and a rate takes two looks.
	err := poll(ctx, func() error {
		text, err := w.kubelet.get(ctx, "/stats/summary", nil)
		if err != nil {
			return err
		}
		return appSummary(text)
	})
	if err != nil {
		return "", err
	}
	labels := `namespace="default",pod="app-` + nodeName + `"`
	for path, names := range series {
		text, err := w.kubelet.get(ctx, path, nil)
		if err != nil {
			return "", err
		}
		lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return !strings.Contains(line, labels) })
		for _, name := range names {
			if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, name+"{") }) {
				return "", fmt.Errorf("%s has no %s for the pod; it has\n%s", path, name, strings.Join(lines, "\n"))
			}
		}
	}
	return "app: CPU, memory, processes, eth0 and storage, and the series of dashboards", nil
}
