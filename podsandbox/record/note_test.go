package record

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
)

// breakDisk makes writes of a pod's status fail until mend is called.
func breakDisk(t *testing.T, dir string) (mend func()) {
	t.Helper()
	spare := filepath.Join(dir, "p1", statusFile+spareSuffix)
	if err := errors.Join(os.Remove(spare), os.Symlink(filepath.Join(dir, "none", "none"), spare)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(spare); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhatIsNotedHolds in memory on a disk that is at fault, and is saved after it:
// by Save, or by the next update.
func TestWhatIsNotedHolds(t *testing.T) {
	to := func(ph lifecycle.Phase) func(*PodStatus) error {
		return func(st *PodStatus) error { st.Phase = ph; return nil }
	}
	for name, save := range map[string]func(*Pod) error{
		"save":   func(p *Pod) error { return p.Save() },
		"update": func(p *Pod) error { _, err := p.Update(func(*PodStatus) error { return nil }); return err },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			p, _ := makePod(t, s)
			wants := func(inMemory, onDisk lifecycle.Phase) {
				t.Helper()
				l, _ := loadOne(t, s)
				if got := p.Status().Phase; got != inMemory || l.Pod.Status().Phase != onDisk {
					t.Errorf("%s in memory and %s on disk, want %s and %s", got, l.Pod.Status().Phase, inMemory, onDisk)
				}
			}
			if err := p.Note(to(lifecycle.Ready)); err != nil {
				t.Fatal(err)
			}
			wants(lifecycle.Ready, lifecycle.Ready)
			mend := breakDisk(t, s.dir)
			if err := p.Note(to(lifecycle.Dead)); !errors.Is(err, ErrUnsaved) {
				t.Errorf("note: %v", err)
			}
			if _, err := p.Update(to(lifecycle.Stopping)); err == nil {
				t.Error("an update succeeded without a disk")
			}
			if err := p.Save(); !errors.Is(err, ErrUnsaved) {
				t.Errorf("save: %v", err)
			}
			wants(lifecycle.Dead, lifecycle.Ready)
			refused := errors.New("refused")
			if err := p.Note(func(st *PodStatus) error { st.Phase = lifecycle.Stopped; return refused }); !errors.Is(err, refused) {
				t.Errorf("a note that is refused: %v", err)
			}
			mend()
			if err := save(p); err != nil {
				t.Error(err)
			}
			wants(lifecycle.Dead, lifecycle.Dead)
			breakDisk(t, s.dir)
			if err := p.Save(); err != nil {
				t.Errorf("what is saved is written again: %v", err)
			}
		})
	}
}
