package main

import (
	"strings"
	"testing"
	"time"
)

const output = `=== RUN   TestRuntimeHandler
    x_test.go:3: Create a sandbox
--- PASS: TestRuntimeHandler (0.10s)
=== RUN   TestImageFSInfo
    x_test.go:7: not | here
--- SKIP: TestImageFSInfo (0.00s)
=== RUN   TestDuplicateName
--- FAIL: TestDuplicateName (0.00s)
=== RUN   TestPodUserNS
=== RUN   TestPodUserNS/userns_uid_mapping
=== RUN   TestPodUserNS/rootfs_permissions
=== RUN   TestPodUserNS/volumes_permissions
--- FAIL: TestPodUserNS (0.00s)
    --- FAIL: TestPodUserNS/userns_uid_mapping (0.00s)
    --- PASS: TestPodUserNS/rootfs_permissions (0.00s)
    --- FAIL: TestPodUserNS/volumes_permissions (0.00s)
FAIL
`

func TestTableSaysWhatBecameOfEveryTest(t *testing.T) {
	all := results(output)
	if err := failed(all); err == nil || err.Error() != "failed: TestPodUserNS/volumes_permissions" {
		t.Errorf("%v", err)
	}
	got := containerdSuite.Table(all, "v1.2.3", "6.1", time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	for _, want := range []string{
		"2026-01-02, Linux 6.1", "containerd v1.2.3: **1 passed, 1 failed, 2 differ, 1 skipped by themselves,",
		"| TestRuntimeHandler | passed |  |", `| TestImageFSInfo | skipped | not \| here |`,
		"| TestDuplicateName | differs | an identical", "| TestPodUserNS/userns_uid_mapping | differs |",
		"| TestUpgrade | left out | starts,",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "rootfs_permissions") {
		t.Error("a part that passed is told of")
	}
}
