package record

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
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

// TestForceHolds in memory on a disk that is at fault, and is persisted after it:
// by Persist, or by the next update.
func TestForceHolds(t *testing.T) {
	to := func(ph lifecycle.Phase) func(*PodStatus) error {
		return func(st *PodStatus) error { st.Phase = ph; return nil }
	}
	for name, save := range map[string]func(*Pod) error{
		"save":   func(p *Pod) error { return p.Persist() },
		"update": func(p *Pod) error { return p.Update(func(*PodStatus) error { return nil }) },
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
			if err := p.Force(to(lifecycle.Ready)); err != nil {
				t.Fatal(err)
			}
			wants(lifecycle.Ready, lifecycle.Ready)
			mend := breakDisk(t, s.dir)
			if err := p.Force(to(lifecycle.Dead)); !errors.Is(err, ErrNotPersisted) {
				t.Errorf("force: %v", err)
			}
			if err := p.Update(to(lifecycle.Stopping)); err == nil {
				t.Error("an update succeeded without a disk")
			}
			if err := p.Persist(); !errors.Is(err, ErrNotPersisted) {
				t.Errorf("persist: %v", err)
			}
			wants(lifecycle.Dead, lifecycle.Ready)
			refused := errors.New("refused")
			if err := p.Force(func(st *PodStatus) error { st.Phase = lifecycle.Stopped; return refused }); !errors.Is(err, refused) {
				t.Errorf("one that is refused: %v", err)
			}
			mend()
			if err := save(p); err != nil {
				t.Error(err)
			}
			wants(lifecycle.Dead, lifecycle.Dead)
			breakDisk(t, s.dir)
			if err := p.Persist(); err != nil {
				t.Errorf("what is persisted is written again: %v", err)
			}
		})
	}
}

// TestStatusWaitsForNoDisk while a change is being written to one that hangs.
func TestStatusWaitsForNoDisk(t *testing.T) {
	s := open(t, t.TempDir())
	p, _ := makePod(t, s)
	spare := filepath.Join(s.dir, "p1", statusFile+spareSuffix)
	if err := errors.Join(os.Remove(spare), unix.Mkfifo(spare, 0o600)); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- p.Force(func(st *PodStatus) error { st.Phase = lifecycle.Dead; return nil }) }()
	read := make(chan lifecycle.Phase, 1)
	go func() {
		for p.Status().Phase != lifecycle.Dead {
			time.Sleep(time.Millisecond)
		}
		read <- p.Status().Phase
	}()
	select {
	case <-read:
	case <-time.After(5 * time.Second):
		t.Error("the status cannot be read while it is written")
	}
	r, err := os.Open(spare) // the disk goes on
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := <-written; err == nil {
		t.Error("a FIFO was truncated") // it cannot be, and so the change is not on record
	}
}
