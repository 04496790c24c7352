package resources

import (
	"math"
	"time"
)

const (
	// fastestGrowth is how fast memory can be taken, in bytes a second, measured
	// with a program that does nothing else.
	fastestGrowth = 1 << 30

	// A look at the host is a system call of some microseconds; to wake up for it costs
	// fifty times as much. So all pods are looked at at the same times, and half as often
	// when none of them has moved of late.
	shortestLook = 20 * time.Millisecond
	quietLook    = 40 * time.Millisecond
	longestLook  = time.Second

	// A pod that grows by less than quietStep from one look to the next does not move.
	quietStep  = leastSlack / 4
	quietAfter = time.Second
)

// lasts is how long so many bytes last, at least shortest.
func lasts(left uint64, shortest time.Duration) time.Duration {
	d := time.Duration(math.Min(float64(left)/fastestGrowth*float64(time.Second), float64(longestLook)))
	return max(d, shortest)
}

// pace sets the times at which pods are looked at.
type pace struct {
	began   time.Time
	movedAt time.Time // when a pod had
}

// looked is called after each look at a pod.
func (p *pace) looked(now time.Time, moved bool) {
	if moved {
		p.movedAt = now
	}
}

// after is the last time before a pause is over, or the next one.
func (p *pace) after(now time.Time, pause time.Duration) time.Time {
	step := shortestLook
	if now.Sub(p.movedAt) >= quietAfter {
		step = quietLook
	}
	return p.began.Add((now.Sub(p.began) + max(pause, step)).Truncate(step))
}
