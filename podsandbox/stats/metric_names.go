package stats

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// metric is one name that ListPodSandboxMetrics answers with. Names, labels and
// meaning are those that the kubelet had from cAdvisor, so that dashboards and
// alerts go on; an interface counts in whole numbers, so seconds are whole ones.
type metric struct {
	name, help string
	kind       runtimeapi.MetricType
	labels     []string // after baseLabels
}

// baseLabels are on every metric. For the pod as a whole container and image are
// empty; id and name are the id of the container or pod.
var baseLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// metricTable has every metric, in the order of their declaration.
var metricTable []*metric

func counter(name, help string, labels ...string) *metric {
	return declare(name, help, runtimeapi.MetricType_COUNTER, labels)
}

func gauge(name, help string, labels ...string) *metric {
	return declare(name, help, runtimeapi.MetricType_GAUGE, labels)
}

func declare(name, help string, kind runtimeapi.MetricType, labels []string) *metric {
	m := &metric{name: name, help: help, kind: kind, labels: labels}
	metricTable = append(metricTable, m)
	return m
}

// CPU. What a quota held back is known of pods only.
var (
	cpuUsage            = counter("container_cpu_usage_seconds_total", "CPU time used, in seconds.")
	cpuUser             = counter("container_cpu_user_seconds_total", "CPU time used in user mode, in seconds.")
	cpuSystem           = counter("container_cpu_system_seconds_total", "CPU time used in system mode, in seconds.")
	cpuPeriods          = counter("container_cpu_cfs_periods_total", "Periods of the CPU quota that have passed.")
	cpuThrottledPeriods = counter("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up.")
	cpuThrottledTime    = counter("container_cpu_cfs_throttled_seconds_total", "Time held back by the CPU quota, in seconds.")
)

// Memory.
var (
	memoryUsage        = gauge("container_memory_usage_bytes", "Memory in use, page cache included.")
	memoryWorkingSet   = gauge("container_memory_working_set_bytes", "Memory in use that cannot simply be given back.")
	memoryRSS          = gauge("container_memory_rss", "Anonymous memory in bytes.")
	memoryCache        = gauge("container_memory_cache", "Page cache in bytes.")
	memoryMappedFile   = gauge("container_memory_mapped_file", "Mapped files in bytes.")
	memorySwap         = gauge("container_memory_swap", "Swap in use, in bytes.")
	memoryKernel       = gauge("container_memory_kernel_usage", "Memory of the host's kernel for the pod, in bytes.")
	memoryPeak         = gauge("container_memory_max_usage_bytes", "The most memory that was in use; of a container, that was seen in use by this daemon.")
	memoryActiveFile   = gauge("container_memory_total_active_file_bytes", "Page cache that was used again, in bytes.")
	memoryInactiveFile = gauge("container_memory_total_inactive_file_bytes", "Page cache that was not used again, in bytes.")
	memoryLimitHits    = counter("container_memory_failcnt", "How often the memory limit was reached.")
	memoryFaults       = counter("container_memory_failures_total", "Page faults.", "failure_type", "scope")
	oomEvents          = counter("container_oom_events_total", "How often something was killed for want of memory.")
)

// Files: the writable layer of a container, and its file system.
var (
	fsUsage      = gauge("container_fs_usage_bytes", "Size of the writable layer in bytes.", "device")
	fsLimit      = gauge("container_fs_limit_bytes", "Size of the file system of the writable layer in bytes.", "device")
	fsInodes     = gauge("container_fs_inodes_total", "Inodes of the file system of the writable layer.", "device")
	fsInodesFree = gauge("container_fs_inodes_free", "Free inodes of the file system of the writable layer.", "device")
)

// Block devices, of pods only: the host cannot tell the containers of one apart.
var (
	fsReadBytes    = counter("container_fs_reads_bytes_total", "Bytes read.", "device")
	fsReads        = counter("container_fs_reads_total", "Reads.", "device")
	fsWrittenBytes = counter("container_fs_writes_bytes_total", "Bytes written.", "device")
	fsWrites       = counter("container_fs_writes_total", "Writes.", "device")
	blkioUsage     = counter("container_blkio_device_usage_total", "Bytes of a block device.", "device", "major", "minor", "operation")
)

// Network, of pods only.
var (
	netRxBytes   = counter("container_network_receive_bytes_total", "Bytes received.", "interface")
	netRxPackets = counter("container_network_receive_packets_total", "Packets received.", "interface")
	netRxDropped = counter("container_network_receive_packets_dropped_total", "Packets dropped while receiving.", "interface")
	netRxErrors  = counter("container_network_receive_errors_total", "Errors while receiving.", "interface")
	netTxBytes   = counter("container_network_transmit_bytes_total", "Bytes sent.", "interface")
	netTxPackets = counter("container_network_transmit_packets_total", "Packets sent.", "interface")
	netTxDropped = counter("container_network_transmit_packets_dropped_total", "Packets dropped while sending.", "interface")
	netTxErrors  = counter("container_network_transmit_errors_total", "Errors while sending.", "interface")
)

// Processes. The sandbox counts threads, and gives no other number at the price
// of one call a pod.
var (
	processCount = gauge("container_processes", "Processes, their threads included.")
	threadCount  = gauge("container_threads", "Threads.")
	threadLimit  = gauge("container_threads_max", "The most threads that there may be; 0 for no limit.")
	ulimitsSoft  = gauge("container_ulimits_soft", "Soft limits of the first process.", "ulimit")
)

// What processes have open. Each one's descriptors count, those that it shares, too.
var (
	openFiles   = gauge("container_file_descriptors", "Open file descriptors.")
	openSockets = gauge("container_sockets", "Open file descriptors that are sockets.")
)

// What was asked for, and when.
var (
	lastSeen              = gauge("container_last_seen", "When the values were taken, in seconds since 1970.")
	startTime             = gauge("container_start_time_seconds", "When it was started, in seconds since 1970.")
	specCPUPeriod         = gauge("container_spec_cpu_period", "Period of the CPU quota in microseconds.")
	specCPUQuota          = gauge("container_spec_cpu_quota", "CPU quota in microseconds; absent without one.")
	specCPUShares         = gauge("container_spec_cpu_shares", "Share of the CPU.")
	specMemoryLimit       = gauge("container_spec_memory_limit_bytes", "Memory limit; 0 for none.")
	specMemoryReservation = gauge("container_spec_memory_reservation_limit_bytes", "Reserved memory; always 0.")
	specSwapLimit         = gauge("container_spec_memory_swap_limit_bytes", "Limit of memory and swap; 0 for none.")
)

// MetricDescriptors describes all that ListPodMetrics can answer with. They are
// the same as long as the daemon runs.
func MetricDescriptors() []*runtimeapi.MetricDescriptor {
	out := make([]*runtimeapi.MetricDescriptor, 0, len(metricTable))
	for _, m := range metricTable {
		out = append(out, &runtimeapi.MetricDescriptor{
			Name: m.name, Help: m.help, LabelKeys: append(append([]string(nil), baseLabels...), m.labels...),
		})
	}
	return out
}

// series collects metrics that are of one thing and one moment.
type series struct {
	at   int64    // ns since 1970
	base []string // values of baseLabels
	out  []*runtimeapi.Metric
}

// add takes the values of the metric's own labels in the order of their keys.
func (s *series) add(m *metric, value uint64, labels ...string) {
	if len(labels) != len(m.labels) {
		panic("metric " + m.name + " has other labels") // a defect that the tests find
	}
	values := s.base
	if len(labels) > 0 {
		values = append(append([]string(nil), s.base...), labels...)
	}
	s.out = append(s.out, &runtimeapi.Metric{
		Name: m.name, Timestamp: s.at, MetricType: m.kind, LabelValues: values, Value: &runtimeapi.UInt64Value{Value: value},
	})
}
