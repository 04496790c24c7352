package spec

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares v with testdata/NAME.json.
func golden(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run with -update and read the diff\n%s", file, got)
	}
}

func TestContainerGolden(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"plain": func(*Input) {},
		"bare": func(in *Input) {
			*in = Input{ID: in.ID, SandboxID: in.SandboxID, RootPath: in.RootPath,
				Container: &runtimeapi.ContainerConfig{Command: []string{"/pause"}}}
		},
		"nonroot-tty-readonly": func(in *Input) {
			in.User = ResolvedUser{UID: 1000, GID: 100, Groups: []uint32{100, 2000}, Home: "/home/u"}
			c := in.Container
			c.Tty, c.Command, c.Args, c.WorkingDir = true, []string{"/bin/sh"}, []string{"-c", "id"}, "/tmp"
			c.Envs = append(c.Envs, &runtimeapi.KeyValue{Key: "HOME", Value: []byte("/h")}, &runtimeapi.KeyValue{Key: "PATH", Value: []byte("/p")})
			c.Mounts = c.Mounts[:1]
			sc := c.Linux.SecurityContext
			sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
			sc.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
			sc.Capabilities = &runtimeapi.Capability{
				AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"},
			}
			sc.MaskedPaths, sc.ReadonlyPaths = []string{"/bin/ls"}, []string{"/tmp"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := baseInput()
			change(&in)
			spec, err := Container(in)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, spec)
			again, err := Container(in)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, again)
		})
	}
}

// The request is kept in a record as it was sent.
func TestContainerLeavesInputAlone(t *testing.T) {
	in := baseInput()
	in.Container.Linux.SecurityContext.MaskedPaths = []string{"/a"}
	before := proto.CloneOf(in.Container)
	spec, err := Container(in)
	if err != nil {
		t.Fatal(err)
	}
	spec.Linux.MaskedPaths[0] = "/changed"
	spec.Linux.ReadonlyPaths[0] = "/changed"
	spec.Linux.Resources.Unified["changed"] = "1"
	spec.Process.Args[0] = "changed"
	spec.Process.User.AdditionalGids[0] = 77
	for i := range spec.Mounts {
		spec.Mounts[i].Options[0] = "changed"
	}
	if !proto.Equal(before, in.Container) {
		t.Error("request was modified")
	}
	if in.User.Groups[0] != 0 || in.Image.Entrypoint[0] != "/app" {
		t.Error("image config or user was modified")
	}
	if defaultReadonlyPaths[0] == "/changed" {
		t.Error("defaults are shared with a spec")
	}
}

func TestContainerNoCommand(t *testing.T) {
	in := baseInput()
	in.Image.Entrypoint, in.Image.Cmd = nil, nil
	_, err := Container(in)
	bad("no command specified").check(t, err)
}

func TestHostname(t *testing.T) {
	hostNetwork := basePod()
	hostNetwork.Hostname = ""
	hostNetwork.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	for _, tc := range []struct {
		pod  *runtimeapi.PodSandboxConfig
		id   string
		want string
	}{
		{basePod(), "0123456789abcdef", "web-0"},
		{hostNetwork, "0123456789abcdef", "node"},
		{nil, "0123456789abcdef", "0123456789ab"},
		{nil, "012", "012"},
	} {
		if got := Hostname(tc.pod, tc.id, "node"); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	spare := append(make([]string, 0, 4), "e") // an append to it would write behind the caller's back
	for name, tc := range map[string]struct {
		entrypoint, cmd, command, args, want []string
	}{
		"entrypoint with room":       {spare, []string{"c"}, nil, nil, []string{"e", "c"}},
		"image":                      {[]string{"e"}, []string{"c"}, nil, nil, []string{"e", "c"}},
		"args replace cmd":           {[]string{"e"}, []string{"c"}, nil, []string{"a"}, []string{"e", "a"}},
		"command drops cmd":          {[]string{"e"}, []string{"c"}, []string{"x"}, nil, []string{"x"}},
		"command and args":           {[]string{"e"}, []string{"c"}, []string{"x"}, []string{"a"}, []string{"x", "a"}},
		"cmd alone":                  {nil, []string{"c"}, nil, nil, []string{"c"}},
		"empty entrypoint is absent": {[]string{""}, []string{"c"}, nil, nil, []string{"c"}},
		"args alone":                 {nil, nil, nil, []string{"a"}, []string{"a"}},
	} {
		in := baseInput()
		in.Image.Entrypoint, in.Image.Cmd = tc.entrypoint, tc.cmd
		in.Container.Command, in.Container.Args = tc.command, tc.args
		got, err := commandLine(in.Container, in.Image)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, tc.want)
		}
	}
	if spare[:2][1] != "" {
		t.Error("the image's entrypoint was written to")
	}
}

func TestWorkingDir(t *testing.T) {
	in := baseInput()
	for _, tc := range []struct{ request, image, want string }{
		{"", "", "/"}, {"", "/img", "/img"}, {"/req", "/img", "/req"}, {"", "rel/dir", "/rel/dir"}, {"", "../..", "/"},
	} {
		in.Container.WorkingDir, in.Image.WorkingDir = tc.request, tc.image
		if got := workingDir(in.Container, in.Image); got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
	}
}

func TestExec(t *testing.T) {
	in := baseInput()
	in.User = ResolvedUser{UID: 5, GID: 6, Groups: []uint32{6, 7}}
	in.Container.Linux.SecurityContext.NoNewPrivs = true
	in.Container.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{AddAmbientCapabilities: []string{"KILL"}}
	spec, err := Container(in)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := json.Marshal(spec)
	p, err := Exec(spec, []string{"id", "-u"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Args, []string{"id", "-u"}) || !p.Terminal || p.User.UID != 5 || p.Cwd != "/srv" || !p.NoNewPrivileges {
		t.Errorf("got %+v", p)
	}
	if !slices.Contains(p.Env, "TERM=xterm") || !slices.Contains(p.Env, "PORT=80") {
		t.Errorf("environment is %q", p.Env)
	}
	p.Env[0], p.User.AdditionalGids[0], p.Rlimits[0].Hard = "X=1", 9, 1
	for _, set := range [][]string{
		p.Capabilities.Bounding, p.Capabilities.Effective, p.Capabilities.Inheritable, p.Capabilities.Permitted, p.Capabilities.Ambient,
	} {
		set[0] = "CAP_X"
	}
	if after, _ := json.Marshal(spec); !bytes.Equal(before, after) {
		t.Error("container's spec changed with the process")
	}
	p, err = Exec(spec, []string{"id"}, false)
	if err != nil || p.Terminal || slices.Contains(p.Env, "TERM=xterm") {
		t.Errorf("without a terminal: %+v, %v", p, err)
	}
	for _, cmd := range [][]string{nil, {""}} {
		_, err = Exec(spec, cmd, false)
		bad("no command").check(t, err)
	}
	_, err = Exec(spec, []string{"a\x00"}, false)
	bad("NUL").check(t, err)
	_, err = Exec(&specs.Spec{}, []string{"id"}, false)
	bad("no process").check(t, err)
}
