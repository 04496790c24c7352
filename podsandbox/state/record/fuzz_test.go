package record

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// FuzzLoad reads records of any content: each is loaded with what a later step
// relies on, or set aside, and a second look finds the same.
func FuzzLoad(f *testing.F) {
	seed := f.TempDir()
	s, err := Open(seed)
	if err != nil {
		f.Fatal(err)
	}
	p, err := s.CreatePod(PodMeta{ID: "p", Config: Message[*runtimeapi.PodSandboxConfig]{Proto: &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "a"},
	}}}, PodStatus{Phase: lifecycle.Ready})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := p.CreateContainer(ContainerMeta{ID: "c", PodID: "p"}, ContainerStatus{Phase: lifecycle.Running}); err != nil {
		f.Fatal(err)
	}
	var good [4][]byte
	for i, name := range []string{"p/" + podFile, "p/" + statusFile, "p/c/" + containerFile, "p/c/" + statusFile} {
		if good[i], err = os.ReadFile(filepath.Join(seed, name)); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(good[0], good[1], good[2], good[3])
	f.Add(good[0], []byte{}, good[2], []byte("{"))
	f.Add([]byte("null"), []byte("null"), []byte("null"), []byte("null"))
	for _, strange := range []string{`{"version":1,"id":"../p"}`, `{"version":99,"id":"p"}`, `{"version":99,"id":"c"}`, `{"id":"p"}`, `{"id":"c"}`} {
		f.Add([]byte(strange), good[1], good[2], good[3])
		f.Add(good[0], good[1], []byte(strange), good[3])
	}
	f.Fuzz(func(t *testing.T, pod, podStatus, container, containerStatus []byte) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "p", "c"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string][]byte{
			"p/" + podFile: pod, "p/" + statusFile: podStatus, "p/c/" + containerFile: container, "p/c/" + statusFile: containerStatus,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		first := load1(t, dir)
		again := load1(t, dir)
		if len(first) != len(again) {
			t.Fatalf("first %d pods, then %d", len(first), len(again))
		}
		for i, l := range first {
			if !lifecycle.Pod.Known(l.Pod.Status().Phase) || l.Pod.Meta.ID != "p" || !written(l.Pod.Meta.Version) {
				t.Errorf("pod %q of version %d is %q", l.Pod.Meta.ID, l.Pod.Meta.Version, l.Pod.Status().Phase)
			}
			if !proto.Equal(l.Pod.Meta.Config.Proto, again[i].Pod.Meta.Config.Proto) || len(l.Containers) != len(again[i].Containers) {
				t.Error("a second look finds something else")
			}
			for _, c := range l.Containers {
				if !lifecycle.Container.Known(c.Status().Phase) || c.Meta.ID != "c" || !written(c.Meta.Version) {
					t.Errorf("container %q of version %d is %q", c.Meta.ID, c.Meta.Version, c.Status().Phase)
				}
			}
		}
	})
}

// written tells the versions of records that there are.
func written(version int) bool { return 1 <= version && version <= Version }

func load1(t *testing.T, dir string) []Loaded {
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	pods, _, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return pods
}
