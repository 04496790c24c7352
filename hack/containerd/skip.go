package main

import "strings"

// skip is a group of tests that is left out, and why. The list is part of the
// result.
type skip struct {
	why   string
	tests []string
}

var skips = []skip{
	{"starts, restarts or upgrades containerd", []string{
		"TestContainerCgroupWritable", "TestRunContainerWithVolatileOption", "TestIssue10244LoopbackV2", "TestIssue10467", "TestUpgrade",
		"TestReload100Pods", "TestContainerdRestart", "TestContainerdRestartSandboxRecover", "TestOOMEventMonitor",
		"TestRuntimeHandlerUnpackWithSnapshotLabels", "TestNriPluginContainerdRestart", "TestUpdatePodSandboxWithRestart",
		"TestImageVolumeSetupIfContainerdRestarts", "TestSandboxStopWithNilCNIResult",
	}},
	{"speaks containerd's own API", []string{
		"TestContainerdImage", "TestContainerdImageInOtherNamespaces", "TestContainerdSandboxImage", "TestContainerdSandboxImagePulledOutsideCRI",
		"TestImageVolumeBasic", "TestImageVolumeReusableAfterFailure",
		"TestUpdateContainerResources_MemorySwap", "TestUpdateContainerResources_MemoryLimit", "TestImageLoad", "TestCRIImagePullTimeout",
	}},
	{"looks into containerd's shim, or breaks it", []string{
		"TestContainerIOLeakAfterStartFailed", "TestContainerTTYLeakAfterExit", "TestIssue7496", "TestIssue7496_ShouldRetryShutdown",
		"TestKillShimPublishesTaskExitAndDeleteEvents", "TestKillShimPublishesTaskExitAndDeleteEventsForContainer",
		"TestKillShimPreservesExitStatusForMultipleContainers", "TestShutdownShimWhenPauseExitsBeforeWorkload", "TestFailFastWhenConnectShim",
		"TestPodSandboxController_ShouldBackoffExitEventWhenFail",
		"TestRunPodSandboxWithSetupCNIFailure", "TestRunPodSandboxWithShimStartFailure", "TestRunPodSandboxWithShimDeleteFailure",
		"TestRunPodSandboxWithShimStartAndTeardownCNIFailure", "TestRunPodSandboxAndTeardownCNISlow",
	}},
	{"reads containerd's configuration, records or directories", []string{
		"TestLongContainerLog", "TestSandboxRemoveWithoutIPLeakage", "TestImageVolumeCheckVolatileOption",
	}},
}

// differences are tests, or parts of them, that run and are not met in one point, by
// decision or because a Sentry cannot; all before that point was met. One that
// passes is no error: some are a race.
var differences = []skip{
	{"an identical second RunPodSandbox is the kubelet's retry of one that timed out: it joins, and gets the same pod", []string{
		"TestDuplicateName",
	}},
	{"ExecSync answers when its command has ended, and not for the sake of what that leaves in the background", []string{
		"TestContainerDrainExecIOAfterExit",
	}},
	{"a host name can be asked for on the host's network: the sandbox has a name of its own", []string{
		"TestPodHostname/host network pod with custom hostname should fail",
	}},
	{"statistics of a container that has ended are no error: they tell the disk that it takes", []string{
		"TestTruncIndex",
	}},
	{"refused, in other words than containerd's", []string{
		"TestContainerSysfsStatsWithPrivilegedPod/sandbox with privileged=false, and container with privileged=true, create container failed",
	}},
	{"signals a shell before it has set its trap: on Linux process 1 is deaf until then, in a Sentry the signal ends it", []string{
		"TestContainerStopCancellation",
		"TestContainerStopSignals/SIGUSR1 stop signal", "TestContainerStopSignals/SIGUSR2 stop signal",
		"TestContainerStopSignals/SIGHUP stop signal", "TestContainerStopSignals/SIGINT stop signal",
		"TestContainerStopSignals/SIGTERM stop signal (default)",
	}},
	{"the host's PID namespace: refused, for the handler native", []string{
		"TestSharedPidMultiProcessContainerStop/hostpid",
	}},
	{"what an image declares as a volume is in the container's layer, and no directory of the host has its files", []string{
		"TestVolumeCopyUp", "TestVolumeOwnership", "TestUsernsVolumeCopyUp",
	}},
	{"the pod has its mapping on the host; /proc/self/uid_map shows the ids of the sandbox's own kernel", []string{
		"TestPodUserNS/userns uid mapping", "TestPodUserNS/userns gid mapping",
	}},
	{"a user namespace on the host's network: refused, for the handler native", []string{
		"TestPodUserNS/userns with host network",
	}},
	{"devices of the host: refused, for the handler native", []string{
		"TestNriLinuxDeviceInjection",
	}},
	{"the pod runs on those CPUs; the Sentry's /proc/self/status has no list of them", []string{
		"TestNriLinuxCpusetAdjustment", "TestNriLinuxCpusetAdjustmentUpdate",
	}},
	{"sets a limit of 15 bytes, which is less than the pod uses: refused", []string{
		"TestNriUpdatePodSandbox",
	}},
}

// difference says why a test may fail, or nothing.
func difference(test string) string {
	for _, d := range differences {
		for _, t := range d.tests {
			if strings.ReplaceAll(t, " ", "_") == test {
				return d.why
			}
		}
	}
	return ""
}

// skipPattern is the pattern of those tests for -test.skip.
func skipPattern(groups []skip) string {
	var p []string
	for _, g := range groups {
		p = append(p, g.tests...)
	}
	return "^(" + strings.Join(p, "|") + ")$"
}
