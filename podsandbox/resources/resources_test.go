package resources

import (
	"testing"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestPeakIsTheMostThatWasSeen(t *testing.T) {
	c := New(nil, nil, nil, nil, 0)
	for _, use := range []uint64{5, 9, 7} {
		c.NotePeaks(map[string]engine.Usage{"a": {MemoryBytes: use}})
	}
	c.NotePeaks(map[string]engine.Usage{"b": {MemoryBytes: 1}})
	if a, b := c.Peak("a"), c.Peak("b"); a != 9 || b != 1 {
		t.Errorf("peaks %d and %d, want 9 and 1", a, b)
	}
	c.Forget("a")
	if a := c.Peak("a"); a != 0 {
		t.Errorf("one that is gone has %d", a)
	}
}
