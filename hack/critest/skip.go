package main

import "strings"

// skip is a group of tests that is left out, and why. The list is printed with the
// result: what is left out is part of it.
type skip struct{ pattern, why string }

var skips = []skip{
	{`HostPID|HostIpc is true`, "needs the host: refused by the gVisor engine, for the handler native"},
	{`mount with 'rshared'`, "a mount made in a sandbox is the Sentry's and cannot reach the host: refused"},
	{`non-recursive readonly`, "a read-only mount is read-only with all that is mounted below it, which is stricter than what is asked for"},
	{`should support sysctls`, "kernel.shm_rmid_forced=1 and fs.mqueue.msg_max: a Sentry keeps System V segments until they are removed, and its limits of message queues are fixed: refused"},
	{`UserNamespaces .*NamespaceMode_POD`, "the pod has its mapping on the host; /proc/self/uid_map shows the ids of the sandbox's own kernel"},
	{`AppArmor|SELinux`, "profiles of the host cannot apply to a process that the host does not see"},
	{`Privileged is true|support adding capability`, "brctl makes a bridge by an ioctl (SIOCBRADDBR) that the Sentry does not have: ENOTTY; that the capability is there, TestCapabilitiesAndPrivileges looks"},
	{`HostNetwork is true`, "a Sentry on the host's network lists the sockets of its pod in /proc/net, and not those of the node"},
}

func skipPattern(groups []skip) string {
	var p []string
	for _, s := range groups {
		p = append(p, s.pattern)
	}
	return strings.Join(p, "|")
}
