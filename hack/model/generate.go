package model

import "math/rand/v2"

// Generate makes the program of a seed: the same seed, the same program.
func Generate(seed uint64, steps int) Program {
	g := generator{rand: rand.New(rand.NewPCG(seed, 1))}
	g.state.Images = [images]bool{true, true}
	p := Program{{Ops: []Op{{Kind: Pull, Arg: 0}, {Kind: Pull, Arg: 1}}}}
	for len(p) < steps {
		p = append(p, g.step())
	}
	return p
}

// GenerateSteady makes a program whose answers are known: one request a step, none cut
// off. One step in four is a restart.
func GenerateSteady(seed uint64, steps int) Program {
	g := generator{rand: rand.New(rand.NewPCG(seed, 2))}
	p := Program{{Ops: []Op{{Kind: Pull, Arg: 0}}}, {Ops: []Op{{Kind: Pull, Arg: 1}}}}
	g.state.Images = [images]bool{true, true}
	for len(p) < steps {
		o := g.op()
		if g.rand.IntN(4) == 0 {
			o = Op{Kind: Restart}
		}
		p = append(p, g.after(Step{Ops: []Op{o}}))
	}
	return p
}

type generator struct {
	rand  *rand.Rand
	state state // as it would be if each request came alone
}

// weights say how often a kind is chosen.
var weights = []struct {
	kind   Kind
	weight int
}{
	{RunPod, 16}, {StopPod, 4}, {RemovePod, 5}, {ResizePod, 2}, {Forward, 1},
	{Create, 24}, {Start, 24}, {Stop, 8}, {Remove, 8}, {Resize, 3}, {Exec, 6}, {Quit, 4},
	{OpenExec, 1}, {OpenAttach, 1}, {ReopenLog, 2}, {Pull, 3}, {RemoveImg, 1}, {Die, 2}, {Restart, 3},
}

func (g *generator) step() Step {
	var s Step
	n := 1
	if g.rand.IntN(5) == 0 {
		n = 2 + g.rand.IntN(2)
	}
	for len(s.Ops) < n {
		o := g.op()
		if o.Kind == Restart {
			if len(s.Ops) > 0 {
				continue
			}
			return Step{Ops: []Op{o}}
		}
		o.Cut = o.Kind != Die && g.rand.IntN(12) == 0
		s.Ops = append(s.Ops, o)
	}
	s.spareSignals()
	if g.rand.IntN(25) == 0 {
		s.Crash = true
	}
	return g.after(s)
}

// after follows what a step does.
func (g *generator) after(s Step) Step {
	for _, o := range s.Ops {
		g.state, _ = g.state.do(o)
		g.state = g.state.settled()
	}
	return s
}

// spareSignals takes out what would send a signal to a container that is only
// just starting: its program may not have its handler yet, and whether it ends, and
// how, is not the runtime's doing.
func (s *Step) spareSignals() {
	for _, starts := range s.Ops {
		if starts.Kind != Start {
			continue
		}
		for i := range s.Ops {
			o := &s.Ops[i]
			switch {
			case o.Pod != starts.Pod || o.Ctr != starts.Ctr:
			case o.Kind == Stop:
				o.Arg = 0
			case o.Kind == Quit:
				o.Kind = Exec
			}
		}
	}
}

// op prefers, of a few requests, one that does something.
func (g *generator) op() Op {
	var o Op
	for range 3 {
		o = g.any()
		if next, _ := g.state.do(o); next != g.state {
			break
		}
	}
	return o
}

func (g *generator) any() Op {
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	o := Op{Pod: g.rand.IntN(pods), Ctr: g.rand.IntN(containers)}
	n := g.rand.IntN(total)
	for _, w := range weights {
		if n -= w.weight; n < 0 {
			o.Kind = w.kind
			break
		}
	}
	switch o.Kind {
	case Create:
		o.Arg = []int{polite, polite, polite, stubborn, 2, 3}[g.rand.IntN(6)]
	case Stop:
		o.Arg = g.rand.IntN(2) * 30
		if c := g.state.Pods[o.Pod].Ctrs[o.Ctr]; c.Script == stubborn && o.Arg > 0 {
			o.Arg = g.rand.IntN(2) // the whole grace period passes
		}
	case Resize, ResizePod:
		o.Arg = 1 + g.rand.IntN(3)
	case Exec:
		o.Arg = g.rand.IntN(3)
	case Pull, RemoveImg:
		o.Arg = g.rand.IntN(images)
	}
	return o
}
