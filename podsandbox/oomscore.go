package podsandbox

import (
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
)

// sandboxOOMScore is what the kubelet wants for what holds a pod together; it
// counts as long as the pod has no container.
const sandboxOOMScore = -998

// adjustOOMScore gives the sandbox process the lowest score of the containers in
// it: the kernel takes the process as a whole, so the most important one decides.
func adjustOOMScore(p *pod, sandbox engine.Sandbox) {
	if err := sandbox.SetOOMScoreAdj(oomScore(p.members())); err != nil {
		klog.V(2).InfoS("Set the pod's OOM score", "pod", p.id(), "err", err)
	}
}

func oomScore(members []*container) int {
	score, any := 0, false
	for _, c := range members {
		switch c.phase() {
		case lifecycle.Starting, lifecycle.Running:
			own := int(c.resources().GetOomScoreAdj())
			if !any || own < score {
				score, any = own, true
			}
		}
	}
	if !any {
		return sandboxOOMScore
	}
	return score
}
