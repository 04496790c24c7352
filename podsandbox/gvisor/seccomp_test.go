package gvisor

import (
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestFitSeccomp(t *testing.T) {
	noSys, perm := uint(38), uint(1)
	made := func() *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActKillThread, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"a", "clone3", "b"}, Action: specs.ActErrno, ErrnoRet: &noSys},
			{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &perm},
			{Names: []string{"c"}, Action: specs.ActKillThread},
		}}
	}
	want := &specs.LinuxSeccomp{DefaultAction: specs.ActKill, Syscalls: []specs.LinuxSyscall{
		// With EPERM no C library of today could make a thread.
		{Names: []string{"clone3"}, Action: specs.ActTrace},
		{Names: []string{"a", "b"}, Action: specs.ActErrno, ErrnoRet: &noSys},
		{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &perm},
		{Names: []string{"c"}, Action: specs.ActKill},
	}}
	filter := made()
	got, err := fitSeccomp(filter)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if !reflect.DeepEqual(filter, made()) {
		t.Errorf("the caller's became %+v", filter)
	}
	// As the records of earlier versions have it.
	if again, err := fitSeccomp(got); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("a second time: %+v, %v", again, err)
	}
	if none, err := fitSeccomp(nil); none != nil || err != nil {
		t.Errorf("of none: %+v, %v", none, err)
	}
}

func TestFitSeccompRefuses(t *testing.T) {
	rule := func(a specs.LinuxSeccompAction) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"chmod"}, Action: a}}}
	}
	for name, tc := range map[string]struct {
		filter *specs.LinuxSeccomp
		want   finding
	}{
		"log":          {&specs.LinuxSeccomp{DefaultAction: specs.ActLog}, needsHost("SCMP_ACT_LOG")},
		"kill process": {rule(specs.ActKillProcess), needsHost("KILL_PROCESS")},
		"notify":       {rule(specs.ActNotify), needsHost("NOTIFY")},
		"listener":     {&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x"}, needsHost("listener /x")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := fitSeccomp(tc.filter)
			tc.want.check(t, err)
			// Whoever asks for it otherwise does not get it either.
			spec := shell(t.TempDir(), "true")
			spec.Linux = &specs.Linux{Seccomp: tc.filter}
			_, err = (&translator{}).prepareSpec(testContext(t), engine.Container{ID: "c", Spec: spec})
			tc.want.check(t, err)
		})
	}
}

func TestPrepareSpecFitsTheFilter(t *testing.T) {
	spec := shell(t.TempDir(), "true")
	spec.Linux = &specs.Linux{Seccomp: &specs.LinuxSeccomp{DefaultAction: specs.ActKillThread}}
	p, err := (&translator{}).prepareSpec(testContext(t), engine.Container{ID: "c", Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.spec.Linux.Seccomp.DefaultAction; got != specs.ActKill {
		t.Errorf("default action %s", got)
	}
	if got := spec.Linux.Seccomp.DefaultAction; got != specs.ActKillThread {
		t.Errorf("the caller's became %s", got)
	}
}

// What gVisor obeys is not for a pod to say.
func TestPrepareSpecDropsAnnotations(t *testing.T) {
	spec := shell(t.TempDir(), "true")
	spec.Annotations = map[string]string{
		"dev.gvisor.spec.rootfs.source": "/", "io.kubernetes.cri-o.ContainerType": "sandbox",
		"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.container-name": "app", "mine": "x",
	}
	p, err := (&translator{cfg: engine.Config{ID: "pod"}}).prepareSpec(testContext(t), engine.Container{ID: "c", Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "pod",
		"io.kubernetes.cri.container-name": "app", "mine": "x",
	}
	if !reflect.DeepEqual(p.spec.Annotations, want) {
		t.Errorf("annotations %v", p.spec.Annotations)
	}
}
