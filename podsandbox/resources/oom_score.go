package resources

import (
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// SandboxOOMScore is what the kubelet wants for what holds a pod together; it
// counts as long as the pod has no container.
const SandboxOOMScore = -998

// AdjustOOMScore gives the sandbox process the lowest score of the containers in
// it: the kernel takes the process as a whole, so the most important one decides.
func AdjustOOMScore(p *state.Pod, sandbox engine.Sandbox) {
	s, ok := sandbox.(engine.OOMScorer)
	if !ok {
		return // its containers have scores of their own
	}
	if err := s.SetOOMScoreAdj(oomScore(p.Containers())); err != nil {
		klog.V(2).InfoS("Failed to set the OOM score of a pod", "pod", p.ID(), "err", err)
	}
}

func oomScore(members []*state.Container) int {
	score, any := 0, false
	for _, c := range members {
		switch c.Phase() {
		case lifecycle.Starting, lifecycle.Running:
			own := int(c.Resources().GetOomScoreAdj())
			if !any || own < score {
				score, any = own, true
			}
		}
	}
	if !any {
		return SandboxOOMScore
	}
	return score
}
