package model

import (
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// answer is what a request got. An attempt that was cut off has none.
type answer struct {
	op   Op
	code codes.Code
	text string
	cut  bool

	reply proto.Message
	err   error
	// after are positions in the step of answers that came before this request
	// was made.
	after []int
}

// raceCodes may be answered, with or without an effect, to a request that met
// another one.
var raceCodes = []codes.Code{codes.FailedPrecondition, codes.NotFound, codes.AlreadyExists, codes.Unavailable, codes.Aborted}

// explain looks for an order of the step's requests in which the model gives these
// answers, and returns all states that such orders lead to.
func explain(from state, answers []answer) []state {
	e := explanation{answers: answers, done: make([]bool, len(answers)), seen: map[state]bool{}}
	e.search(from, 0)
	return e.states
}

type explanation struct {
	answers []answer
	done    []bool
	states  []state
	seen    map[state]bool
}

func (e *explanation) search(s state, n int) {
	if n == len(e.answers) {
		s = s.settled()
		if !e.seen[s] {
			e.seen[s] = true
			e.states = append(e.states, s)
		}
		return
	}
	for i, a := range e.answers {
		if e.done[i] || slices.ContainsFunc(a.after, func(j int) bool { return !e.done[j] }) {
			continue
		}
		e.done[i] = true
		for _, next := range e.outcomes(s, a) {
			e.search(next, n+1)
			if after := next.settled(); after != next && n+1 < len(e.answers) {
				e.search(after, n+1) // it has ended before the next request
			}
		}
		e.done[i] = false
	}
}

// shared tells whether a request was made more than once in the step: one that is
// under way is joined, and the answer is that of the one that did the work.
func (e *explanation) shared(o Op) bool {
	n := 0
	for _, a := range e.answers {
		if a.op.Kind == o.Kind && a.op.Pod == o.Pod && a.op.Ctr == o.Ctr {
			n++
		}
	}
	return n > 1
}

// kills tells whether the step kills the container of a request.
func (e *explanation) kills(o Op) bool {
	return slices.ContainsFunc(e.answers, func(a answer) bool {
		switch a.op.Kind {
		case Die, StopPod, RemovePod:
			return a.op.Pod == o.Pod
		case Stop:
			return a.op.Pod == o.Pod && a.op.Ctr == o.Ctr && a.op.Arg == 0
		}
		return false
	})
}

// outcomes are the states that a request may lead to, given its answer.
func (e *explanation) outcomes(s state, a answer) []state {
	next, code := s.do(a.op)
	if a.cut {
		out := []state{s, next}
		if a.op.Kind == Start && s.Pods[a.op.Pod].Ctrs[a.op.Ctr].Phase == created && s.Pods[a.op.Pod].Phase == ready {
			for _, code := range []int{codeUnknown, codeNotStarted, codeKilled} {
				lost := s
				lost.Pods[a.op.Pod].Ctrs[a.op.Ctr].exit(code)
				out = append(out, lost)
			}
		}
		return out
	}
	alone := len(e.answers) == 1
	// A command that ends its own container may go with it.
	ends := a.op.Kind == Quit && next != s
	switch {
	case a.op.Kind == Start && a.code == codes.OK && e.shared(a.op):
		return []state{s, next}
	case ends && (a.code == code || slices.Contains(raceCodes, a.code)) && e.kills(a.op):
		killed := s // before it has followed the signal that it got
		killed.Pods[a.op.Pod].Ctrs[a.op.Ctr].exit(codeKilled)
		return []state{next, killed}
	case code == a.code, ends && slices.Contains(raceCodes, a.code):
		return []state{next}
	case !alone && slices.Contains(raceCodes, a.code):
		out := []state{s}
		if a.op.Kind == Start && s.Pods[a.op.Pod].Ctrs[a.op.Ctr].Phase == created {
			// It could not be started, which is an end, or was killed at once.
			for _, code := range []int{codeNotStarted, codeKilled} {
				failed := s
				failed.Pods[a.op.Pod].Ctrs[a.op.Ctr].exit(code)
				out = append(out, failed)
			}
		}
		return out
	}
	return nil
}
