package lifecycle

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// The whole of both tables as text: a change of a transition is a change of a
// promise, and has to be made twice.
func TestMachineTransitionsAreTheDocumentedOnes(t *testing.T) {
	for _, m := range []Machine{Pod, Container} {
		var rows []string
		for from, events := range m.table {
			for ev, to := range events {
				rows = append(rows, fmt.Sprintf("%s + %s = %s", from, ev, to))
			}
		}
		sort.Strings(rows)
		want, err := os.ReadFile("testdata/" + m.name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(rows, "\n") + "\n"; got != string(want) {
			t.Errorf("%s transitions:\n%s\nwant:\n%s", m.name, got, want)
		}
	}
}

func TestMachineKnowsEveryTarget(t *testing.T) {
	for _, m := range []Machine{Pod, Container} {
		for from, events := range m.table {
			for ev, to := range events {
				if !m.Known(to) {
					t.Errorf("%s: %s + %s leads to %s, which has no row", m.name, from, ev, to)
				}
			}
		}
	}
}

func TestNextRefusesWhatIsNotInTheTable(t *testing.T) {
	got, err := Container.Next(Running, Remove)
	if !errdefs.IsFailedPrecondition(err) {
		t.Fatalf("err = %v, want FailedPrecondition", err)
	}
	if got != Running {
		t.Errorf("phase changed to %s", got)
	}
	if _, err := Pod.Next("nonsense", Stop); err == nil {
		t.Error("an unknown phase was accepted")
	}
}
