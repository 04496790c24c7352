package main

import (
	"fmt"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the build; resolveVersion makes a semantic version of it.
var version string

func init() { version = resolveVersion(version, debug.ReadBuildInfo) }

// semver is the form that Semantic Versioning 2.0.0 defines. The kubelet shows a
// runtime of any other version as Unknown.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

// noVersion is of a program that nobody told anything, such as a test's.
const noVersion = "0.0.0"

// resolveVersion is the version that the build has set, or else the one that the go
// command has left in the program: of the module, or of the commit it was built from.
func resolveVersion(set string, read func() (*debug.BuildInfo, bool)) string {
	if v := strings.TrimPrefix(set, "v"); semver.MatchString(v) {
		return v
	}
	info, ok := read()
	if !ok {
		return noVersion
	}
	if v := strings.TrimPrefix(info.Main.Version, "v"); semver.MatchString(v) {
		return v
	}
	return versionOfCommit(info.Settings)
}

// versionOfCommit has the form 0.0.0-DATE-COMMIT, with +dirty where files differ
// from the commit.
func versionOfCommit(settings []debug.BuildSetting) string {
	vcs := map[string]string{}
	for _, s := range settings {
		vcs[s.Key] = s.Value
	}
	at, err := time.Parse(time.RFC3339, vcs["vcs.time"])
	if err != nil || vcs["vcs.revision"] == "" {
		return noVersion
	}
	const short = 12
	commit := vcs["vcs.revision"][:min(short, len(vcs["vcs.revision"]))]
	v := noVersion + "-" + at.UTC().Format("20060102150405") + "-" + commit
	if vcs["vcs.modified"] == "true" {
		v += "+dirty"
	}
	if !semver.MatchString(v) {
		return noVersion
	}
	return v
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "cri-sandbox %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
