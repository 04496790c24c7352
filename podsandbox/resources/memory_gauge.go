package resources

import "time"

const (
	// slowLook is when a sandbox is asked although its use on the host has not grown: a
	// container may have taken what another has freed inside.
	slowLook = 10 * time.Second

	// What the sandbox itself takes and frees looks like growth of a container. A
	// container that has less than leastSlack left may pass its limit by that, or by
	// mostSlack while the sandbox was found to have grown alone.
	leastSlack = 1 << 20
	mostSlack  = 8 << 20
)

// gauge decides from a pod's use of memory on the host when its sandbox is to be asked
// for that of its containers, which costs some hundred times as much as a look at the
// host. It has no clock, and does nothing by itself.
type gauge struct {
	smallest uint64    // of the containers' limits: with less in use, nobody is over
	ceiling  uint64    // the limit at which the host takes page cache from the pod; 0 is none
	due      time.Time // when to ask whatever the host says

	left  uint64 // to the container that was nearest to its limit
	slack uint64

	// Since the last question: the least that was in use, and that was held; see
	// cgroup.MemoryReader.Held.
	lowest, lowestHeld uint64
	grown              uint64 // 0 when it was asked for another reason

	lastUse uint64
	heldAt  time.Time // when held was read last

	// As of the last look: growth may not show in what is in use; it has grown.
	full, moved bool
}

// look judges what is in use now. It returns whether to ask, and if not, when to look
// again. held is called only when the pod is full.
func (g *gauge) look(now time.Time, use uint64, held func() (uint64, error)) (ask bool, next time.Duration) {
	changed := use != g.lastUse
	g.moved = use > g.lastUse && use-g.lastUse >= quietStep
	g.lastUse = use
	g.lowest = min(g.lowest, use)
	g.grown = use - g.lowest
	enough := max(g.left, g.slack)
	g.full = g.ceiling > 0 && g.ceiling-min(use, g.ceiling) < enough+gateStep
	if use < g.smallest {
		return false, lasts(g.smallest-use, shortestLook)
	}
	if !now.Before(g.due) {
		g.grown = 0 // it is not asked for that
		return true, 0
	}
	if g.full {
		g.lookAtHeld(now, changed || lasts(enough-min(g.grown, enough), shortestLook) > quietLook, held)
	}
	if g.grown > enough {
		return true, 0
	}
	return false, lasts(enough-g.grown, shortestLook)
}

// mayBeSpared tells whether a gate that is shut says enough of the pod, given when it
// was looked at.
func (g *gauge) mayBeSpared(now, lookedAt time.Time) bool {
	return !g.full && now.Sub(lookedAt) < longestShut
}

// lookAtHeld is for a pod that is near its limit on the host: what its containers take
// may be taken from its page cache, so that its use as a whole does not grow. It costs
// ten times as much as the rest, so it is left out for a while where nothing moves and
// the next look comes soon.
func (g *gauge) lookAtHeld(now time.Time, needed bool, held func() (uint64, error)) {
	if !needed && now.Sub(g.heldAt) < longestLook {
		return
	}
	n, err := held()
	if err != nil {
		return // as for what is in use, which comes next
	}
	g.heldAt = now
	g.lowestHeld = min(g.lowestHeld, n)
	if n-g.lowestHeld > g.grown {
		g.grown, g.moved = n-g.lowestHeld, true
	}
}

// asking is called before the question with what is in use, and held, by then.
func (g *gauge) asking(use, held uint64) { g.lowest, g.lowestHeld = use, held }

// answered takes in what the nearest container has left, and when to ask again at the
// latest.
func (g *gauge) answered(left uint64, due time.Time) {
	switch taken := g.left - min(left, g.left); {
	case g.grown == 0:
		g.slack /= 2
	case taken < g.grown/2:
		g.slack *= 2 // it was not the container that grew
	default:
		g.slack = 0
	}
	g.slack = min(max(g.slack, leastSlack), mostSlack)
	g.left, g.due = left, due
}
