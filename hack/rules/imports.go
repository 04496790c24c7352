package rules

import (
	"fmt"
	"strconv"
	"strings"
)

// fence keeps a library in the directories that own it, so that it can be replaced or
// upgraded there alone.
type fence struct {
	library string // import path and all below it
	allowed []string
	why     string
}

var fences = []fence{
	{"google.golang.org/grpc", []string{"cri", "cmd/cri-sandbox", "hack", "test"},
		"the packages below the gRPC surface return errdefs classes, and cri has the one table to codes"},
	{"k8s.io/cri-streaming", []string{"cri", "hack", "test"},
		"cri owns the streaming server"},
	{"github.com/containernetworking/cni", []string{"network", "hack/failcni"},
		"network owns CNI"},
	{"github.com/containerd/containerd/v2", []string{"image"},
		"image owns the image store"},
	{"github.com/containerd/nri", []string{"podsandbox/nri", "hack/nriplugin"},
		"podsandbox/nri owns the plugins of the node"},
	{"tags.cncf.io/container-device-interface", []string{"podsandbox/cdi"},
		"podsandbox/cdi owns the descriptions of devices"},
	{"gvisor.dev/gvisor", []string{"podsandbox/gvisor", "podsandbox/sentry"},
		"gVisor's interfaces are internal to it and are pinned in one place"},
}

// exempt are packages of a fenced library that everybody may import: they have no
// state, no dependencies and nothing of the library's field.
var exempt = map[string]bool{
	"gvisor.dev/gvisor/pkg/cleanup": true,
}

// floor is a layer of the house: what lies in from must not import what lies in to.
type floor struct {
	from, to []string
	why      string
}

// ground are packages that everybody may import, and that import nobody.
var ground = []string{"internal"}

var floors = []floor{
	{[]string{"podsandbox", "network", "image"}, []string{"cri", "cmd"}, "imports point downwards"},
	{[]string{"cri"}, []string{"cmd"}, "imports point downwards"},
	{[]string{"network", "image"}, []string{"podsandbox"}, "network and image know no pods"},
	{[]string{"network"}, []string{"image"}, "network and image are neighbours"},
	{[]string{"image"}, []string{"network"}, "network and image are neighbours"},
	{ground, []string{"."}, "it is below all others"},
	{[]string{"cri", "cmd", "podsandbox", "network", "image"}, []string{"hack", "test"}, "what is shipped does not stand on tools"},
	{[]string{"podsandbox/state", "podsandbox/spec", "podsandbox/engine", "podsandbox/layout"},
		[]string{"network", "image"}, "the pure packages drive nothing"},
	{[]string{"podsandbox/sentry"}, []string{"."}, "the sentry program is built on other versions than the daemon"},
}

// storeys are the packages of the owner of pods, from the ground up. Each may import
// those of lower storeys alone; one that is not named stands on the storey of the one
// that it lies in.
var storeys = [][]string{
	{"podsandbox/engine", "podsandbox/cgroup", "podsandbox/cdi", "podsandbox/layout", "podsandbox/logs", "podsandbox/terminal", "podsandbox/state/lifecycle"},
	{"podsandbox/spec", "podsandbox/state/record"},
	{"podsandbox/state", "podsandbox/gvisor", "podsandbox/native"},
	{"podsandbox/nri", "podsandbox/stream", "podsandbox/rootfs", "podsandbox/leftovers", "podsandbox/preflight"},
	{"podsandbox/resources"},
	{"podsandbox/stats"},
	{"podsandbox"},
}

// storeyOf is the storey of a package, and the entry of it; -1 for those that have none.
func storeyOf(dir string) (storey int, entry string) {
	storey = -1
	for i, packages := range storeys {
		for _, p := range packages {
			if below(dir, p) && len(p) > len(entry) {
				storey, entry = i, p
			}
		}
	}
	return storey, entry
}

// climbs says what is wrong with an import between two packages of the owner of pods.
func climbs(dir, target string) string {
	from, own := storeyOf(dir)
	to, other := storeyOf(target)
	if from < 0 || to < from || own == other {
		return ""
	}
	return fmt.Sprintf("it is no lower storey of the owner of pods than %s", own)
}

// Imports finds imports across a fence or upwards. Tests may use hack; the other
// rules hold for them, too.
func Imports(root string) ([]Finding, error) {
	files, err := sources(root)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, s := range files {
		for _, spec := range s.tree.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return nil, fmt.Errorf("parse import in %s: %w", s.file, err)
			}
			why := crossed(s.dir, path)
			if why == "" {
				why = upwards(s, path)
			}
			if why != "" {
				out = append(out, Finding{s.file, s.line(spec.Pos()), fmt.Sprintf("imports %s: %s", path, why)})
			}
		}
	}
	return out, nil
}

func crossed(dir, path string) string {
	for _, f := range fences {
		if below(path, f.library) && !exempt[path] && !anyAbove(dir, f.allowed) {
			return f.why
		}
	}
	return ""
}

func upwards(s source, path string) string {
	if !below(path, Module) {
		return ""
	}
	target := strings.TrimPrefix(strings.TrimPrefix(path, Module), "/")
	if anyAbove(target, ground) && !anyAbove(s.dir, ground) {
		return ""
	}
	if why := climbs(s.dir, target); why != "" {
		return why
	}
	for _, f := range floors {
		if !anyAbove(s.dir, f.from) {
			continue
		}
		for _, to := range f.to {
			if s.test && to == "hack" {
				continue
			}
			if below(target, to) || to == "." && !below(target, s.dir) {
				return f.why
			}
		}
	}
	return ""
}
