package record

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func podConfig() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: "u1", Attempt: 3},
		Labels:   map[string]string{"app": "web"},
		Linux:    &runtimeapi.LinuxPodSandboxConfig{Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}},
	}
}

func makePod(t *testing.T, s *Store) (*Pod, *Container) {
	t.Helper()
	p, err := s.CreatePod(PodMeta{ID: "p1", CreatedAt: 7, Config: Message[*runtimeapi.PodSandboxConfig]{podConfig()}},
		PodStatus{Phase: lifecycle.Creating})
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.CreateContainer(ContainerMeta{ID: "c1", PodID: "p1",
		Config: Message[*runtimeapi.ContainerConfig]{&runtimeapi.ContainerConfig{Command: []string{"sh"}}}},
		ContainerStatus{Phase: lifecycle.Creating})
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

func loadOne(t *testing.T, s *Store) (Loaded, []error) {
	t.Helper()
	pods, damaged, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(pods) == 0 {
		return Loaded{}, damaged
	}
	return pods[0], damaged
}

func TestLoadReadsBackWhatWasWritten(t *testing.T) {
	s := open(t, t.TempDir())
	p, c := makePod(t, s)
	if err := p.Update(func(st *PodStatus) error {
		st.Phase, st.IPs = lifecycle.Ready, []string{"10.0.0.2", "fd00::2"}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	user := Message[*runtimeapi.ContainerUser]{&runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: 7}}}
	if err := c.Update(func(st *ContainerStatus) error {
		st.Phase, st.ExitCode, st.User = lifecycle.Exited, 137, &user
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.SaveSpec(&specs.Spec{Hostname: "web"}); err != nil {
		t.Fatal(err)
	}

	l, damaged := loadOne(t, s)
	if len(damaged) > 0 || len(l.Containers) != 1 {
		t.Fatalf("loaded %+v, damaged %v", l, damaged)
	}
	if !proto.Equal(l.Pod.Meta.Config.Proto, podConfig()) {
		t.Errorf("config = %v", l.Pod.Meta.Config.Proto)
	}
	if st := l.Pod.Status(); st.Phase != lifecycle.Ready || len(st.IPs) != 2 {
		t.Errorf("pod status = %+v", st)
	}
	if st := l.Containers[0].Status(); st.ExitCode != 137 || st.User.Proto.Linux.Uid != 7 {
		t.Errorf("container status = %+v", st)
	}
	if spec, err := l.Containers[0].Spec(); err != nil || spec.Hostname != "web" {
		t.Errorf("spec = %+v, %v", spec, err)
	}
}

func TestUpdateThatIsRefusedChangesNothing(t *testing.T) {
	s := open(t, t.TempDir())
	p, _ := makePod(t, s)
	no := errors.New("no")
	if err := p.Update(func(st *PodStatus) error { st.Phase = lifecycle.Ready; return no }); !errors.Is(err, no) {
		t.Fatalf("err = %v", err)
	}
	if ph := p.Status().Phase; ph != lifecycle.Creating {
		t.Errorf("memory says %s", ph)
	}
	// The disk refuses: memory must not run ahead of it.
	if err := os.RemoveAll(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Update(func(st *PodStatus) error { st.Phase = lifecycle.Ready; return nil }); err == nil {
		t.Fatal("an update without a directory succeeded")
	}
	if ph := p.Status().Phase; ph != lifecycle.Creating {
		t.Errorf("memory says %s", ph)
	}
}

func TestLoadTornStatusCountsAsDeath(t *testing.T) {
	s := open(t, t.TempDir())
	p, c := makePod(t, s)
	for _, f := range []string{p.dir + "/status.json", c.dir + "/status.json"} {
		if err := os.WriteFile(f, []byte(`{"phase":"ru`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, damaged := loadOne(t, s)
	if len(damaged) != 2 {
		t.Errorf("of two lost statuses it is told: %v", damaged)
	}
	if ph := l.Pod.Status().Phase; ph != lifecycle.Dead {
		t.Errorf("pod is %s, want dead", ph)
	}
	if st := l.Containers[0].Status(); st.Phase != lifecycle.Exited || st.Reason != "ContainerStatusUnknown" {
		t.Errorf("container is %+v", st)
	}
}

func TestLoadSetsDamagedRecordsAside(t *testing.T) {
	for name, content := range map[string]string{
		"garbage":       "{",
		"later version": `{"version":99,"id":"p1"}`,
		"other id":      `{"version":1,"id":"../../etc"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			p, _ := makePod(t, s)
			if err := os.WriteFile(filepath.Join(p.dir, podFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			l, damaged := loadOne(t, s)
			if l.Pod != nil || len(damaged) != 1 || !strings.Contains(damaged[0].Error(), "set aside") {
				t.Fatalf("loaded %+v, damaged %v", l, damaged)
			}
			if _, damaged := loadOne(t, s); len(damaged) > 0 {
				t.Errorf("the damage is reported again: %v", damaged)
			}
		})
	}
}

func TestLoadDropsACreationThatDidNotGetFar(t *testing.T) {
	s := open(t, t.TempDir())
	p, _ := makePod(t, s)
	if err := os.Remove(filepath.Join(p.dir, podFile)); err != nil {
		t.Fatal(err)
	}
	if l, damaged := loadOne(t, s); l.Pod != nil || len(damaged) > 0 {
		t.Fatalf("loaded %+v, damaged %v", l, damaged)
	}
	if _, err := os.Stat(p.dir); !os.IsNotExist(err) {
		t.Error("the directory is still there")
	}
}

func TestStoreIsUnreadableToOthers(t *testing.T) {
	s := open(t, t.TempDir())
	_, c := makePod(t, s)
	for _, f := range []string{c.dir, filepath.Join(c.dir, containerFile), filepath.Join(c.dir, statusFile)} {
		fi, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", f, fi.Mode())
		}
	}
}
