package main

import "strings"

// skip is a group of tests that is left out, and why. The list is printed with the
// result: what is left out is part of it.
type skip struct{ pattern, why string }

var skips = []skip{
	{`HostPID|HostIpc is true|Privileged is true|when privileged|pod sandbox is privileged`, "needs the host: refused by the gVisor engine, for the handler native"},
	{`Mount Propagation|Mount Readonly|Container OOM`, "the suite runs these in privileged pods: as above"},
	{`should support sysctls`, "kernel.shm_rmid_forced and fs.mqueue.msg_max cannot be set in a Sentry: refused"},
	{`UserNamespaces`, "pods with a user namespace of their own are to come"},
	{`AppArmor|SELinux`, "profiles of the host cannot apply to a process that the host does not see"},
	{`HostNetwork is true`, "a Sentry on the host's network does not list the host's sockets in /proc/net"},
}

func skipPattern(groups []skip) string {
	var p []string
	for _, s := range groups {
		p = append(p, s.pattern)
	}
	return strings.Join(p, "|")
}
