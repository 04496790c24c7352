package resources

import (
	"testing"
	"time"
)

// gaugeRun is a pod of one container and the gauge that watches it, in a time of its own.
type gaugeRun struct {
	gauge
	pace
	gate  gate // behind which there are others, who do not move
	use   func(at time.Duration) (container, host, held uint64)
	limit uint64

	asked, looks int
	over         uint64 // by how much the container was over its limit when that was seen
}

// run looks as often as the gauge says, and stops when the container is over its limit.
func (r *gaugeRun) run(until time.Duration) {
	began := time.Unix(1e9, 0)
	r.began, r.smallest = began, r.limit
	var lookedAt time.Time
	for now := began; now.Before(began.Add(until)); {
		at := now.Sub(began)
		container, host, held := r.use(at)
		if r.gate.look(host + 1<<30); r.gate.shut && r.mayBeSpared(now, lookedAt) {
			now = r.after(now, 0)
			continue
		}
		lookedAt = now
		r.looks++
		ask, pause := r.look(now, host, func() (uint64, error) { return held, nil })
		r.looked(now, r.moved)
		if !ask {
			now = r.after(now, pause)
			continue
		}
		r.asked++
		r.asking(host, held)
		if container > r.limit {
			r.over = container - r.limit
			return
		}
		r.answered(r.limit-container, now.Add(slowLook))
		now = r.after(now, lasts(r.limit-container, shortestLook))
	}
}

const mib = 1 << 20

// eaten is what a container that eats at full speed from a time on has by then.
func eaten(at, from time.Duration) uint64 {
	return uint64(max(at-from, 0).Seconds() * fastestGrowth)
}

func TestGaugeSeesAContainerPassItsLimit(t *testing.T) {
	const limit, host = 512 * mib, 600 * mib // what the others and the sandbox have
	for name, c := range map[string]struct {
		ceiling uint64
		// what the pod uses on the host, and holds, when the container has taken so much
		pod func(at time.Duration, taken uint64) (use, held uint64)
	}{
		"alone": {0, func(_ time.Duration, taken uint64) (uint64, uint64) { return host + taken, host + taken }},
		"with room on the host": {2048 * mib, func(_ time.Duration, taken uint64) (uint64, uint64) {
			return host + taken, host/2 + taken
		}},
		// The kernel takes page cache away for what the container takes.
		"at the pod's limit": {host, func(at time.Duration, taken uint64) (uint64, uint64) {
			return host - uint64(at.Milliseconds()%17)*4096, host/4 + taken
		}},
		"after another has freed memory": {0, func(at time.Duration, taken uint64) (uint64, uint64) {
			if at < 6*time.Second {
				return 2 * host, 2 * host
			}
			return host + taken, host + taken
		}},
	} {
		for _, left := range []uint64{0, 4096, mib, 5 * mib, 30 * mib, 200 * mib, limit} {
			for phase := range 40 {
				from := 7*time.Second + time.Duration(phase)*time.Millisecond
				r := gaugeRun{limit: limit, use: func(at time.Duration) (uint64, uint64, uint64) {
					taken := eaten(at, from)
					use, held := c.pod(at, taken)
					return limit - left + taken, use, held
				}}
				r.ceiling = c.ceiling
				r.run(from + 4*time.Second)
				// It was quiet before. One that had to grow first is looked at more often.
				most := uint64(42 * mib)
				if left >= 60*mib {
					most = 22 * mib
				}
				if r.over == 0 || r.over > most {
					t.Errorf("%s, %d left: seen when it was over by %d bytes; %d looks, %d questions", name, left, r.over, r.looks, r.asked)
				}
			}
		}
	}
}

// TestGaugeAsksSeldom: a container that stays below its limit costs a question every
// slowLook, and where the sandbox itself takes and frees much memory some more.
func TestGaugeAsksSeldom(t *testing.T) {
	const limit, host = 512 * mib, 600 * mib
	for name, c := range map[string]struct {
		ceiling, left, swing uint64
		most                 int // in a minute
	}{
		"at the limit":            {0, 0, 0, 7},
		"just below":              {0, 4096, 0, 7},
		"at the limit of the pod": {host, 4096, 0, 7},
		"a sandbox that breathes": {0, 4096, mib, 7},
		"a sandbox that pants":    {0, 4096, 6 * mib, 50},
		"far from the limit":      {0, 300 * mib, 6 * mib, 7},
	} {
		r := gaugeRun{limit: limit, use: func(at time.Duration) (uint64, uint64, uint64) {
			use := uint64(host)
			if at/(200*time.Millisecond)%2 == 1 {
				use -= c.swing
			}
			return limit - c.left, use, host / 2
		}}
		r.ceiling = c.ceiling
		r.run(time.Minute)
		if r.asked == 0 || r.asked > c.most {
			t.Errorf("%s: %d questions, want at most %d", name, r.asked, c.most)
		}
		if most := int(time.Minute / shortestLook); c.swing > quietStep && r.looks > most+r.asked || c.swing == 0 && r.looks > most/2+2*int(quietAfter/shortestLook) {
			t.Errorf("%s: %d looks", name, r.looks)
		}
	}
}

func TestGaugeDoesNotAskWhileNobodyCanBeOver(t *testing.T) {
	r := gaugeRun{limit: 512 * mib, use: func(time.Duration) (uint64, uint64, uint64) { return 100 * mib, 200 * mib, 200 * mib }}
	r.run(time.Minute)
	if r.asked > 0 || r.looks > 250 {
		t.Errorf("%d questions, %d looks", r.asked, r.looks)
	}
}
