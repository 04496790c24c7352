package cgroup

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// TestAdopt lets systemd take over a scope that a process was born in.
func TestAdopt(t *testing.T) {
	if _, systemd := Mode(); !systemd || os.Geteuid() != 0 {
		t.Skip("needs root and systemd")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	slice := fmt.Sprintf("crisandboxtest%d-pod.slice", os.Getpid())
	g := mustMake(t, thisHost(), slice, "pod", Limits{})
	cmd := join(t, g, "sleep", "1000")
	for range 2 { // the second time it is known
		if err := g.Adopt(ctx, cmd.Process.Pid, Limits{PidsLimit: 77}); err != nil {
			t.Fatal(err)
		}
	}
	property := func(name string) any {
		t.Helper()
		p, err := conn.GetUnitTypePropertyContext(ctx, g.scope, "Scope", name)
		if err != nil {
			t.Fatal(err)
		}
		return p.Value.Value()
	}
	if got := property("ControlGroup"); got != g.path {
		t.Errorf("systemd has the scope at %v, want %s", got, g.path)
	}
	if got := property("TasksMax"); got != uint64(77) {
		t.Errorf("systemd has %v as the limit of tasks, want 77", got)
	}
	if err := g.updateScope(Limits{PidsLimit: 78}); err != nil {
		t.Error(err)
	}
	if got := property("TasksMax"); got != uint64(78) {
		t.Errorf("systemd has %v as the limit of tasks, want 78", got)
	}
	membership, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(membership), g.path+"\n") {
		t.Errorf("member of %s, %v, want %s", membership, err, g.path)
	}
	mustDelete(t, g)
	cmd.Wait()
	for { // systemd forgets the scope when it hears that it is empty
		units, err := conn.ListUnitsByNamesContext(ctx, []string{g.scope})
		if err != nil {
			t.Fatal(err)
		}
		if len(units) == 0 || units[0].ActiveState != "active" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
}
