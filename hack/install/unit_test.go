// Package install has the files that `make install` puts in place.
package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const unit = "cri-sandbox.service"

// settings reads a unit; a setting that is given several times has all values.
func settings(t *testing.T) (map[string]string, string) {
	t.Helper()
	raw, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	var comments strings.Builder
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			comments.WriteString(line + "\n")
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok {
			all[key] = strings.TrimSpace(all[key] + " " + value)
		}
	}
	return all, comments.String()
}

// complaint is systemd's FILE:LINE: in front of one.
var complaint = regexp.MustCompile(`\.service:\d+:`)

// unbearable are settings that break running pods; see the unit for the reasons.
var unbearable = []string{
	"ProtectSystem", "ProtectHome", "ProtectProc", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
	"ProtectControlGroups", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ReadOnlyPaths",
	"SystemCallFilter", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime",
	"RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "ProtectClock", "ProtectHostname",
	"NoNewPrivileges", "PrivateNetwork", "PrivateUsers", "DevicePolicy",
}

func TestUnitIsAsHardAsItCanBe(t *testing.T) {
	set, comments := settings(t)
	for key, want := range map[string]string{
		"KillMode": "process", "Delegate": "yes", "RuntimeDirectoryPreserve": "yes", "RuntimeDirectoryMode": "0711", "LimitCORE": "0",
	} {
		if set[key] != want {
			t.Errorf("%s=%s, want %s", key, set[key], want)
		}
	}
	for _, key := range unbearable {
		if _, has := set[key]; has {
			t.Errorf("%s is set", key)
		}
		if !strings.Contains(comments, key) {
			t.Errorf("no comment says why %s is not set", key)
		}
	}
	caps := strings.Fields(set["CapabilityBoundingSet"])
	if len(caps) == 0 {
		t.Fatal("no bounding set")
	}
	for _, c := range []string{
		"CAP_SYS_MODULE", "CAP_SYS_BOOT", "CAP_SYS_TIME", "CAP_SYS_RAWIO", "CAP_SYSLOG", "CAP_AUDIT_CONTROL", "CAP_AUDIT_READ",
		"CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_LINUX_IMMUTABLE", "CAP_SYS_PACCT",
		"CAP_SYS_TTY_CONFIG", "CAP_LEASE", "CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE", "CAP_IPC_OWNER",
	} {
		if slices.Contains(caps, c) {
			t.Errorf("%s is in the bounding set", c)
		}
	}
}

// TestSystemdTakesTheUnit asks systemd's own reader, which complains about unknown
// settings and values on stderr.
func TestSystemdTakesTheUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze")
	}
	raw, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("@PREFIX@/bin/cri-sandbox", "/bin/true", "@SYSCONFDIR@", "/etc").Replace(string(raw))
	dir := t.TempDir()
	path := filepath.Join(dir, unit)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", path).CombinedOutput()
	if err != nil {
		t.Skipf("systemd-analyze cannot look at files here: %v: %s", err, out)
	}
	if complaint.Match(out) {
		t.Errorf("systemd complains:\n%s", out)
	}
	for _, line := range []string{"✓ CapabilityBoundingSet=~CAP_SYS_MODULE", "✓ CapabilityBoundingSet=~CAP_SYS_TIME", "✓ CapabilityBoundingSet=~CAP_SYS_BOOT"} {
		found := strings.Contains(strings.Join(strings.Fields(string(out)), " "), line)
		if !found {
			t.Errorf("%q is not in:\n%s", line, out)
		}
	}
}
