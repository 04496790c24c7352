package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// A call that waits for another one of the same container waits as long as its own
// context lasts, and no longer.
func TestContainerLockEndsWithItsContext(t *testing.T) {
	b := newBrokenOut(t, newTestEngine(t), func(_ string, _ json.RawMessage, conn net.Conn) {
		_, _ = conn.Write([]byte(`{"success":true,"result":0}`))
	})
	c, _ := newContainer(t, shell(t.TempDir(), "true"))
	entry := b.containers.get(c.ID)
	if err := entry.turn.lock(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(context.Context) error{
		"Create":  func(ctx context.Context) error { return b.Create(ctx, c.Container) },
		"Start":   func(ctx context.Context) error { return b.Start(ctx, c.Container) },
		"Destroy": func(ctx context.Context) error { return b.Destroy(ctx, c.ID) },
		"Kill":    b.Kill, // whose process ends all the same
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		done := make(chan error, 1)
		go func() { done <- call(ctx) }()
		select {
		case err := <-done:
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another call") {
				t.Errorf("%s: %v, want DeadlineExceeded that says why", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s does not end", name)
		}
		cancel()
	}
	entry.turn.unlock()
	if err := b.Destroy(testContext(t), c.ID); err != nil {
		t.Errorf("Destroy of one that is free: %v", err)
	}
}

func TestSlotThatIsFreeIsTakenWithAnEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 {
		s := newSlot()
		if err := s.lock(ctx); err != nil {
			t.Fatal(err)
		}
		if s.tryLock() {
			t.Fatal("it was taken twice")
		}
		if err := s.lock(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("%v, want Canceled", err)
		}
	}
}

// A boot that fails before there is a process leaves no descriptor.
func TestPrepareThatFailsEarlyLeavesNoDescriptor(t *testing.T) {
	e := newTestEngine(t)
	program := e.program
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which closes files, too
	for name, change := range map[string]func(*engine.Machine){
		"no directory": func(m *engine.Machine) { m.Dir = "/no/such/directory" },
		"no program":   func(*engine.Machine) { e.program = os.DevNull },
		"no cgroup":    func(m *engine.Machine) { m.CgroupPaths = []string{"/no/such/cgroup"} },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() { e.program = program }()
			m := podConfig(t, nil).Machine()
			change(&m)
			before := descriptors(t)
			if p, err := e.Prepare(testContext(t), m); err == nil {
				_ = p.Discard(testContext(t))
				t.Fatal("it was booted")
			}
			eventually(t, func() error { // the fd store closes beside its caller
				if after := descriptors(t); after > before {
					return errors.New("descriptors are left")
				}
				return nil
			})
		})
	}
}

// A gofer answers with the mounts that it was given, and not with more.
func TestGofersListIsBoundByItsSpec(t *testing.T) {
	p := startPod(t)
	p.eng.program = brokenProgram(t, idleProgram)
	c, _ := newContainer(t, shell(newRootfs(t), "true"))
	if err := p.Create(testContext(t), c.Container); err != nil {
		t.Fatal(err)
	}
	g := p.containers.get(c.ID).gofer
	pipe := otherEnd(t, g)
	defer pipe.Close()
	mounts := strings.Repeat("{},", 1<<20)
	wrote := make(chan int, 1)
	go func() {
		n, _ := pipe.WriteString("[" + mounts + "{}]")
		wrote <- n
	}()
	select {
	case <-g.ready:
	case <-time.After(20 * time.Second):
		t.Fatal("it is read on")
	}
	if n := <-wrote; n > 200<<10 { // with what is in the pipe
		t.Errorf("%d bytes of it were read", n)
	}
	if g.err == nil || !strings.Contains(g.err.Error(), "longer than") {
		t.Errorf("the gofer's error is %v", g.err)
	}
	<-g.proc.done
}

// A file of the sandbox takes no more memory of the node than is read of it.
func TestReadFileHasASize(t *testing.T) {
	var size int64
	made := make(chan *brokenOut, 1)
	b := newBrokenOut(t, newTestEngine(t), func(_ string, _ json.RawMessage, conn net.Conn) {
		b := <-made
		b.mu.Lock()
		defer b.mu.Unlock()
		f := b.sent[methodReadFile][0]
		_, _ = f.WriteAt([]byte("text"), 0)
		_, err := f.WriteAt([]byte("more"), 1<<30)
		if err == nil {
			t.Error("it can be made larger")
		}
		if st, err := f.Stat(); err == nil {
			size = st.Size()
		}
		_, _ = conn.Write([]byte(`{"success":true}`))
	})
	made <- b
	got, err := b.control.readFile(testContext(t), "/proc/x")
	if err != nil || string(got) != "text" || size != maxRead {
		t.Errorf("%q, %v, size %d", got, err, size)
	}
}
