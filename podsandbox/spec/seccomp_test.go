package spec

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// action is what a filter does for a call without regard to its arguments.
func action(s *specs.LinuxSeccomp, name string) specs.LinuxSeccompAction {
	for _, call := range s.Syscalls {
		if len(call.Args) == 0 && slices.Contains(call.Names, name) {
			return call.Action
		}
	}
	return s.DefaultAction
}

func TestSeccompDefault(t *testing.T) {
	filterFor := func(add ...string) *specs.LinuxSeccomp {
		in := baseInput()
		in.Container.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{}
		in.Container.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddCapabilities: add}
		spec, err := Container(in)
		if err != nil {
			t.Fatal(err)
		}
		return spec.Linux.Seccomp
	}
	plain, admin := filterFor(), filterFor("SYS_ADMIN")
	if got := action(plain, "openat"); got != specs.ActAllow {
		t.Errorf("openat: %s", got)
	}
	if got := action(plain, "mount"); got != specs.ActErrno {
		t.Errorf("mount without CAP_SYS_ADMIN: %s", got)
	}
	if got := action(admin, "mount"); got != specs.ActAllow {
		t.Errorf("mount with CAP_SYS_ADMIN: %s", got)
	}
	if got := action(plain, "clone3"); got != specs.ActErrno {
		t.Errorf("clone3 without CAP_SYS_ADMIN: %s", got)
	}
	if got := action(admin, "clone3"); got != specs.ActAllow {
		t.Errorf("clone3 with CAP_SYS_ADMIN: %s", got)
	}
}

func TestSeccompForms(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "sub/deny.json"), `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}`)
	writeFile(t, filepath.Join(dir, "broken.json"), `{`)
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"device": "/dev/zero", "loop": "loop", "link": "sub/deny.json", "to-fifo": "fifo"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "huge.json"), "")
	if err := os.Truncate(filepath.Join(dir, "huge.json"), 1<<40); err != nil {
		t.Fatal(err)
	}
	local := func(ref string) *runtimeapi.SecurityProfile {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}
	}
	for name, tc := range map[string]struct {
		profile *runtimeapi.SecurityProfile
		legacy  string
		filter  bool
		want    want
	}{
		"nothing":           {nil, "", false, want{}},
		"unconfined":        {&runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, "", false, want{}},
		"default":           {&runtimeapi.SecurityProfile{}, "", true, want{}},
		"old unconfined":    {nil, "unconfined", false, want{}},
		"old default":       {nil, "runtime/default", true, want{}},
		"old docker":        {nil, "docker/default", true, want{}},
		"old path":          {nil, "localhost/" + dir + "/sub/deny.json", true, want{}},
		"message wins":      {&runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, "runtime/default", false, want{}},
		"absolute":          {local(dir + "/sub/deny.json"), "", true, want{}},
		"relative":          {local("sub/deny.json"), "", true, want{}},
		"climbing":          {local("sub/../../x"), "", false, bad("below")},
		"absent":            {local("none.json"), "", false, bad("not on this node")},
		"broken":            {local("broken.json"), "", false, bad("broken.json")},
		"directory":         {local("sub"), "", false, bad("regular")},
		"FIFO":              {local("fifo"), "", false, bad("regular")},
		"link":              {local("link"), "", true, want{}},
		"link to a FIFO":    {local("to-fifo"), "", false, bad("regular")},
		"device":            {local("device"), "", false, bad("regular")},
		"loop of links":     {local("loop"), "", false, bad("symbolic links")},
		"huge":              {local("huge.json"), "", false, bad("huge.json is larger")},
		"old and unknown":   {nil, "strict", false, bad("strict")},
		"old and no name":   {nil, "localhost/", false, bad("localhost/")},
		"local and no name": {local(""), "", false, bad("names no profile")},
	} {
		t.Run(name, func(t *testing.T) {
			sc := &runtimeapi.LinuxContainerSecurityContext{Seccomp: tc.profile, SeccompProfilePath: tc.legacy}
			got, err := containerSeccomp(sc, dir, nil)
			tc.want.check(t, err)
			if err == nil && (got != nil) != tc.filter {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestDecodeSeccomp(t *testing.T) {
	rule := func(s string) string { return `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + s + `]}` }
	for name, tc := range map[string]struct {
		profile string
		want    want
	}{
		"OCI":              {rule(`{"names":["chmod"],"action":"SCMP_ACT_ERRNO","args":[{"index":5,"value":1,"op":"SCMP_CMP_EQ"}]}`), want{}},
		"Docker, name":     {rule(`{"name":"chmod","action":"SCMP_ACT_ERRNO","comment":"","includes":{},"excludes":{"caps":["CAP_SYS_ADMIN"]}}`), want{}},
		"no rules":         {`{"defaultAction":"SCMP_ACT_ERRNO"}`, want{}},
		"not JSON":         {`SCMP_ACT_ALLOW`, bad("JSON")},
		"empty":            {``, bad("JSON")},
		"empty object":     {`{}`, bad("defaultAction")},
		"null":             {`null`, bad("defaultAction")},
		"null rule":        {rule(`null`), bad("null")},
		"no default":       {`{"syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO"}]}`, bad("defaultAction")},
		"unknown default":  {`{"defaultAction":"ALLOW"}`, bad("ALLOW")},
		"unknown action":   {rule(`{"names":["chmod"],"action":"NO"}`), bad("chmod")},
		"no names":         {rule(`{"names":[],"action":"SCMP_ACT_ERRNO"}`), bad("no names")},
		"name and names":   {rule(`{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}`), bad("name")},
		"argument 6":       {rule(`{"names":["chmod"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}`), bad("argument 6")},
		"unknown operator": {rule(`{"names":["chmod"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"op":"=="}]}`), bad("==")},
		"bad kernel":       {rule(`{"names":["chmod"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"x"}}`), bad("kernel")},
		"log":              {`{"defaultAction":"SCMP_ACT_LOG"}`, anEngines},
		"kill process":     {rule(`{"names":["chmod"],"action":"SCMP_ACT_KILL_PROCESS"}`), anEngines},
		"notify":           {rule(`{"names":["chmod"],"action":"SCMP_ACT_NOTIFY"}`), anEngines},
		"listener":         {`{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}`, anEngines},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeSeccomp([]byte(tc.profile), nil)
			tc.want.check(t, err)
		})
	}
}
