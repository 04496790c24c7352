package e2e

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
)

// goferMounts are the mounts of the one gofer of a pod, by mount point, with their
// options, as the host's kernel lists them.
func goferMounts(k kit, pod string) map[string]string {
	k.Helper()
	for _, pid := range podProcesses(k, pod) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.HasPrefix(string(name), "cri-sandbox-gofer/") {
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
		k.must(err)
		defer f.Close()
		mounts := map[string]string{}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if fields := strings.Fields(lines.Text()); len(fields) > 5 {
				mounts[goferPath(fields[4])] = fields[5]
			}
		}
		return mounts
	}
	k.Fatal("the pod has no gofer")
	return nil
}

// goferPath is a mount point as seen from the gofer's root before it went into the
// container's: the kernel lists what is below the reader's root only.
func goferPath(path string) string {
	if strings.HasPrefix(path, "/root") {
		return path
	}
	return "/root" + path
}

func hasOption(options, want string) bool { return slices.Contains(strings.Split(options, ","), want) }

func missing(text, part string) bool { return !strings.Contains(text, part) }
