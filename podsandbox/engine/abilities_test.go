package engine

import (
	"testing"

	"github.com/containerd/errdefs"
)

type scorer struct{ Sandbox }

func (scorer) SetOOMScoreAdj(int) error { return nil }

func TestAbility(t *testing.T) {
	if s, err := Ability[OOMScorer](scorer{}, "be killed"); err != nil || s != (scorer{}) {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := Ability[PortDialer](scorer{}, "forward ports"); !errdefs.IsNotImplemented(err) {
		t.Errorf("%v", err)
	}
}
