package main

import (
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	const (
		commit = "0123456789abcdef0123456789abcdef01234567"
		when   = "2026-11-30T13:14:53+02:00"
	)
	settings := func(more ...debug.BuildSetting) []debug.BuildSetting {
		return append(more, debug.BuildSetting{Key: "vcs.revision", Value: commit}, debug.BuildSetting{Key: "vcs.time", Value: when})
	}
	for name, tc := range map[string]struct {
		set  string
		info *debug.BuildInfo
		want string
	}{
		"tag":              {"v1.2.3", nil, "1.2.3"},
		"candidate":        {"v1.2.3-rc.1+dirty", nil, "1.2.3-rc.1+dirty"},
		"between tags":     {"0.0.0-20261130111453-0123456789ab+dirty", nil, "0.0.0-20261130111453-0123456789ab+dirty"},
		"nothing":          {"", nil, "0.0.0"},
		"no version":       {"0123456-dirty", nil, "0.0.0"},
		"module":           {"", &debug.BuildInfo{Main: debug.Module{Version: "v0.4.0"}}, "0.4.0"},
		"pseudo-version":   {"", &debug.BuildInfo{Main: debug.Module{Version: "v0.4.1-0.20261130111453-0123456789ab+dirty"}}, "0.4.1-0.20261130111453-0123456789ab+dirty"},
		"plain build":      {"", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: settings()}, "0.0.0-20261130111453-0123456789ab"},
		"changed files":    {"", &debug.BuildInfo{Settings: settings(debug.BuildSetting{Key: "vcs.modified", Value: "true"})}, "0.0.0-20261130111453-0123456789ab+dirty"},
		"no version there": {"unknown", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "0.0.0"},
	} {
		got := resolveVersion(tc.set, func() (*debug.BuildInfo, bool) { return tc.info, tc.info != nil })
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if !semver.MatchString(version) {
		t.Errorf("this program's version %q is not a semantic one", version)
	}
}

// TestVersionOfMake: what the Makefile says of this tree is a semantic version, also
// with changed files and between tags.
func TestVersionOfMake(t *testing.T) {
	out, err := exec.Command("make", "-s", "-C", filepath.Join("..", ".."), "version").Output()
	if err != nil {
		t.Skip("make, git or the repository is not there: ", err)
	}
	if v := strings.TrimSpace(string(out)); v != "" && !semver.MatchString(v) {
		t.Errorf("make says %q", v)
	}
}
