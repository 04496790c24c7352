package model

import (
	"google.golang.org/grpc/codes"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
)

// Phases of pods and containers as a caller sees them.
type phase string

const (
	absent  phase = ""
	ready   phase = "ready"
	dead    phase = "dead" // its sandbox ended; listed as not ready
	stopped phase = "stopped"
	created phase = "created"
	running phase = "running"
	exited  phase = "exited"
)

// scripts are what containers run, by Op.Arg.
var scripts = []string{enginetest.Polite, enginetest.Stubborn, "exit 0", "exit 5"}

const (
	polite = iota
	stubborn
	first // of those that end by themselves
)

// ownCode is the exit code of a script that ends by itself.
func ownCode(script int) int { return []int{0, 0, 0, 5}[script] }

// Codes of ends that are not the program's own.
const (
	codeTerm       = 7 // of Polite, on SIGTERM
	codeKilled     = 137
	codeNotStarted = 128
	codeUnknown    = 255 // the daemon died while it started the container
)

type ctrState struct {
	Phase  phase
	Script int
	Image  int
	Code   int
	Limit  int // in units; 0 is none
}

type podState struct {
	Phase phase
	Ctrs  [containers]ctrState
}

// state is all that the model knows. It is a value: assigning copies it.
type state struct {
	Pods   [pods]podState
	Images [images]bool
}

// do returns the state after a request, and the code of its answer. It is the
// whole of the model.
func (s state) do(o Op) (state, codes.Code) {
	p := &s.Pods[o.Pod]
	switch o.Kind {
	case RunPod:
		return s.runPod(o)
	case StopPod, RemovePod, Die:
		p.end(o.Kind)
	case ResizePod, Forward:
		return s, p.usable()
	case Create:
		return s.create(o)
	case Pull:
		s.Images[o.Arg] = true
	case RemoveImg:
		s.Images[o.Arg] = false
	case Restart:
	default:
		return s.container(o)
	}
	return s, codes.OK
}

// settled is what a state becomes by itself: scripts end that do not go on.
func (s state) settled() state {
	for i := range s.Pods {
		for j := range s.Pods[i].Ctrs {
			if c := &s.Pods[i].Ctrs[j]; c.Phase == running && c.Script >= first {
				c.exit(ownCode(c.Script))
			}
		}
	}
	return s
}

// usable is the answer to what needs a ready pod.
func (p *podState) usable() codes.Code {
	switch p.Phase {
	case absent:
		return codes.NotFound
	case ready:
		return codes.OK
	}
	return codes.FailedPrecondition
}

func (s state) runPod(o Op) (state, codes.Code) {
	p := &s.Pods[o.Pod]
	switch p.Phase {
	case absent:
		p.Phase = ready
	case ready: // the kubelet asks again
	default:
		return s, codes.AlreadyExists
	}
	return s, codes.OK
}

// end is the end of a pod: all that its containers were, they are no more.
func (p *podState) end(how Kind) {
	if p.Phase == absent {
		return
	}
	for i := range p.Ctrs {
		switch c := &p.Ctrs[i]; c.Phase {
		case created:
			c.exit(codeNotStarted)
		case running:
			c.exit(codeKilled)
		}
	}
	switch {
	case how == RemovePod:
		*p = podState{}
	case how == StopPod:
		p.Phase = stopped
	case p.Phase == ready:
		p.Phase = dead
	}
}

func (c *ctrState) exit(code int) { c.Phase, c.Code = exited, code }

func (s state) create(o Op) (state, codes.Code) {
	p := &s.Pods[o.Pod]
	c := &p.Ctrs[o.Ctr]
	img := imageOf(o)
	switch {
	case p.Phase == absent:
		return s, codes.NotFound
	case c.Phase == created && c.Script == o.Arg:
		return s, codes.OK // the kubelet asks again
	case c.Phase != absent:
		return s, codes.AlreadyExists
	case p.Phase != ready:
		return s, codes.FailedPrecondition
	case !s.Images[img]:
		return s, codes.NotFound
	}
	*c = ctrState{Phase: created, Script: o.Arg, Image: img}
	return s, codes.OK
}

// imageOf is the image of a container that is created.
func imageOf(o Op) int { return o.Arg % images }

// container does what concerns one container.
func (s state) container(o Op) (state, codes.Code) {
	p := &s.Pods[o.Pod]
	c := &p.Ctrs[o.Ctr]
	if c.Phase == absent {
		if o.Kind == Stop || o.Kind == Remove {
			return s, codes.OK
		}
		return s, codes.NotFound
	}
	switch o.Kind {
	case Start:
		if p.Phase != ready || c.Phase != created {
			return s, codes.FailedPrecondition
		}
		c.Phase = running
	case Stop:
		if c.Phase == running {
			c.exit(stopCode(c.Script, o.Arg))
		}
	case Remove:
		*c = ctrState{}
	case Resize:
		if p.Phase != ready || c.Phase == exited {
			return s, codes.FailedPrecondition
		}
		c.Limit = o.Arg
	case Exec, OpenExec, OpenAttach, ReopenLog, Quit:
		if c.Phase != running {
			return s, codes.FailedPrecondition
		}
		if o.Kind == Quit && c.Script == polite {
			c.exit(codeTerm)
		}
	}
	return s, codes.OK
}

func stopCode(script, grace int) int {
	if script == polite && grace > 0 {
		return codeTerm
	}
	return codeKilled
}
