package resources

import (
	"math"
	"testing"
)

func TestLasts(t *testing.T) {
	for left, most := range map[uint64]float64{0: 0, 1 << 20: 0, 64 << 20: 0.0625, 1 << 29: 0.5, 1 << 40: 1, math.MaxUint64: 1} {
		d := lasts(left, shortestLook)
		if d < shortestLook || d > longestLook || d > shortestLook && d.Seconds() > most {
			t.Errorf("with %d bytes left: %v, want at most %v s", left, d, most)
		}
	}
}
