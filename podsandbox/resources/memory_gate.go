package resources

import (
	"time"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
)

const (
	// gateStep is how much the pods behind a gate grow before they are looked at.
	gateStep = leastSlack

	// longestShut is for how long a pod is not looked at because of a gate.
	longestShut = 6 * quietLook
)

// gate spares looks at pods, by one look at the cgroup in which they all are: while that
// has not grown, none of them has, unless others have shrunk as much at the same time.
// Therefore each pod is looked at every longestShut all the same.
type gate struct {
	memory *cgroup.MemoryReader
	pods   int // that it is for

	lowest uint64    // that was in use since it was open
	at     time.Time // of the round that shut is for
	shut   bool
}

// look judges what is in use now by all pods behind the gate.
func (g *gate) look(use uint64) {
	g.lowest = min(g.lowest, use)
	g.shut = use-g.lowest < gateStep
	if !g.shut {
		g.lowest = use
	}
}

// isShut is the same for all of one round.
func (g *gate) isShut(now time.Time) bool {
	if g.at.Equal(now) {
		return g.shut
	}
	g.at = now
	use, err := g.memory.Usage()
	if err != nil {
		g.shut = false
		return false
	}
	g.look(use)
	return g.shut
}

// enter has the pod looked at as its gate says.
func (w *memoryWatch) enter(p *watchedPod) {
	top := p.group.Top()
	g := w.gates[top.Path()]
	if g == nil {
		g = &gate{memory: top.OpenMemory()}
		w.gates[top.Path()] = g
	}
	g.pods++
	p.gate = g
}

// leave closes a gate that is for no pod any more.
func (w *memoryWatch) leave(p *watchedPod) {
	if p.gate == nil {
		return
	}
	if p.gate.pods--; p.gate.pods == 0 {
		p.gate.memory.Close()
		delete(w.gates, p.group.Top().Path())
	}
	p.gate = nil
}
