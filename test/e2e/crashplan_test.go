package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// death is one way to die.
type death struct {
	life string
	step string
	n    int // the n-th time that the daemon gets there

	// then, unless empty, is where the next daemon dies.
	then  string
	thenN int
}

const anyStep = "*"

func (d death) String() string {
	s := fmt.Sprintf("%s: %s (%d)", d.life, d.step, d.n)
	if d.then != "" {
		s += fmt.Sprintf(", and the next at %s (%d)", d.then, d.thenN)
	}
	return s
}

// takeovers are deaths after which the next daemon has something to do, in which
// it dies, too.
var takeovers = []death{
	{life: "pod", step: "after sandbox boot", n: 1},
	{life: "pod", step: "before record of container created", n: 1},
	{life: "pod", step: "before container start", n: 1},
	{life: "pod", step: "after record of container running", n: 1},
	{life: "death", step: "before exit handling", n: 1},
	{life: "pod", step: "after container directory removal", n: 1},
	{life: "pod", step: "after record of pod stopping", n: 1},
	{life: "pod", step: "after record of pod removing", n: 1},
	{life: "image", step: "before layer unpack", n: 1},
	{life: "shared", step: "before gate opens", n: 1},
}

// isBatch tells a step whose number in a life is chance: how many batches a log
// comes in. Only the first is sure.
func isBatch(step string) bool { return strings.Contains(step, " log ") }

// planDeaths lives each life once and makes a list of what was got to. It sees to
// it that each step of the source is on the list, and no other.
func planDeaths(t *testing.T, n crashNode, steps []string) []death {
	t.Helper()
	soak, _ := testenv.Soak(0)
	seen := map[string]bool{}
	var deaths []death
	for _, name := range []string{"pod", "death", "image", "mapped", "shared"} {
		order, err := n.trace(death{life: name})
		if err != nil {
			t.Fatal(err)
		}
		times := map[string]int{}
		for _, step := range order {
			times[step]++
			// A record is written several times in a phase, with other content.
			again := strings.Contains(step, "record of") && times[step] <= 3
			if times[step] > 1 && isBatch(step) || !soak && (seen[step] || times[step] > 1 && !again) {
				continue
			}
			d := death{life: name, step: step, n: times[step]}
			deaths = append(deaths, d)
			if soak {
				d.then, d.thenN = anyStep, 1+len(deaths)%15
				deaths = append(deaths, d)
			}
		}
		for step := range times {
			seen[step] = true
		}
	}
	walked := map[string]bool{}
	for _, d := range takeovers {
		order, err := n.trace(d)
		if err != nil {
			t.Fatal(err)
		}
		times := map[string]int{}
		for _, step := range order {
			if times[step]++; !walked[step] || soak {
				walked[step] = true
				d.then, d.thenN = step, times[step]
				deaths = append(deaths, d)
			}
			seen[step] = true
		}
	}
	for _, step := range steps {
		if !seen[step] {
			t.Errorf("no life gets to step %q", step)
		}
	}
	for step := range seen {
		if !slices.Contains(steps, step) {
			t.Errorf("step %q is not in the source", step)
		}
	}
	return deaths
}

// trace returns the steps of a life, in order; of one with a death, those of the
// daemon that takes over, until it is ready.
func (n crashNode) trace(d death) ([]string, error) {
	file := filepath.Join(n.TempDir(), "trace")
	trace := "CRI_SANDBOX_CRASH_TRACE=" + file
	if err := n.env.Kill(); err != nil {
		return nil, err
	}
	err := n.traceInto(d, trace)
	if err != nil {
		return nil, fmt.Errorf("trace %v: %w", d, err)
	}
	out, err := os.ReadFile(file)
	return strings.Split(strings.TrimSpace(string(out)), "\n"), err
}

func (n crashNode) traceInto(d death, trace string) error {
	l := newLife(n.env)
	restart := func() error {
		n.env.Use(n.armed, trace)
		if _, err := n.env.Start(n.ctx); err != nil {
			return err
		}
		if err := n.env.Kill(); err != nil {
			return err
		}
		n.env.Use("")
		_, err := n.env.Start(n.ctx)
		return err
	}
	n.env.Use(n.armed, trace)
	if d.step != "" {
		n.env.Use(n.armed, fmt.Sprintf("CRI_SANDBOX_CRASH_AT=%s#%d", d.step, d.n))
	}
	if _, err := n.env.Start(n.ctx); err != nil {
		return err
	}
	died, err := n.liveThrough(l, lives[d.life], restart)
	if err == nil && d.step != "" && !died {
		err = fmt.Errorf("the daemon did not get there")
	}
	if err != nil {
		return err
	}
	return n.env.Stop(n.ctx)
}
