package gvisor

import "path"

// What the file systems of the Sentry hold is known here for what every container
// needs, and is not asked: one sandbox may have been taken over, and its answer
// must not decide what another pod's containers see. What is not known here is
// asked of the container's own sandbox, and holds for that one alone.
//
// Nothing here depends on the machine, on a pod's limits or on its ids. Tests hold
// all of it to sandboxes of several sizes, so that a later gVisor fails a test.

// knownKinds are the paths that Kubernetes masks and protects by default.
var knownKinds = map[string]pathKind{
	"/proc/acpi":          absent,
	"/proc/asound":        absent,
	"/proc/bus":           directory,
	"/proc/fs":            directory,
	"/proc/interrupts":    absent,
	"/proc/irq":           directory,
	"/proc/kcore":         absent,
	"/proc/keys":          absent,
	"/proc/latency_stats": absent,
	"/proc/sched_debug":   absent,
	"/proc/scsi":          absent,
	"/proc/sys":           directory,
	"/proc/sysrq-trigger": file,
	"/proc/timer_list":    absent,
	"/proc/timer_stats":   absent,

	// Its parent is there on nodes that know the name of their board.
	"/sys/devices/virtual/powercap": absent,
	"/sys/firmware":                 directory,
}

// throttleCounters are masked by the kubelet for each processor of the node,
// however many of them the sandbox has.
const throttleCounters = "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"

// knownKind is false for a path that has to be asked for.
func knownKind(target string) (pathKind, bool) {
	if kind, ok := knownKinds[target]; ok {
		return kind, true
	}
	if ok, _ := path.Match(throttleCounters, target); ok {
		return absent, true
	}
	return absent, false
}

// defaultSysctls are the directories of the Sentry's /proc/sys that hold a file which
// can be written, with all their files and what these hold in a pod that sets no
// sysctl. The rest of /proc/sys takes no writes and stays as it is: it holds values
// that are computed when they are read, such as kernel/random/uuid.
var defaultSysctls = map[string]map[string]string{
	"/proc/sys/fs":          {"mount-max": "10000\n", "nr_open": "2147483647\n", "pipe-max-size": "1048576\n"},
	"/proc/sys/kernel/keys": {"maxkeys": "200\n"},
	"/proc/sys/kernel/yama": {"ptrace_scope": "1\n"},
	"/proc/sys/net/ipv4": {
		"ip_forward":                       "0\n",
		"ip_local_port_range":              "16000 65535\n",
		"ip_local_reserved_ports":          "",
		"ip_no_pmtu_disc":                  "1",
		"ip_nonlocal_bind":                 "0",
		"ipfrag_time":                      "30",
		"tcp_allowed_congestion_control":   "",
		"tcp_available_congestion_control": "reno",
		"tcp_base_mss":                     "1280",
		"tcp_congestion_control":           "reno",
		"tcp_dsack":                        "0",
		"tcp_early_retrans":                "0",
		"tcp_fack":                         "0",
		"tcp_fastopen":                     "0",
		"tcp_fastopen_key":                 "",
		"tcp_invalid_ratelimit":            "0",
		"tcp_keepalive_intvl":              "0",
		"tcp_keepalive_probes":             "0",
		"tcp_keepalive_time":               "7200",
		"tcp_mtu_probing":                  "0",
		"tcp_no_metrics_save":              "1",
		"tcp_probe_interval":               "0",
		"tcp_probe_threshold":              "0",
		"tcp_recovery":                     "1\n",
		"tcp_retries1":                     "3",
		"tcp_retries2":                     "15",
		"tcp_rfc1337":                      "1",
		"tcp_rmem":                         "4096\t1048576\t4194304\n",
		"tcp_sack":                         "1\n",
		"tcp_slow_start_after_idle":        "1",
		"tcp_syn_retries":                  "3",
		"tcp_synack_retries":               "5",
		"tcp_timestamps":                   "1",
		"tcp_wmem":                         "4096\t1048576\t4194304\n",
	},
}
