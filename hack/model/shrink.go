package model

import (
	"context"
	"slices"
	"time"
)

// Shrink looks for a smaller program that fails, until nothing can be taken away
// or the time is over. fails runs a program on a fresh target.
func Shrink(ctx context.Context, p Program, limit time.Duration, fails func(context.Context, Program) bool) Program {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for n := len(p) / 2; n > 0 && ctx.Err() == nil; n /= 2 {
		p = dropSteps(ctx, p, n, fails)
	}
	for again := true; again && ctx.Err() == nil; {
		again = false
		for _, smaller := range simpler(p) {
			if ctx.Err() == nil && fails(ctx, smaller) {
				p, again = smaller, true
				break
			}
		}
	}
	return p
}

// dropSteps takes away runs of n steps, from the end.
func dropSteps(ctx context.Context, p Program, n int, fails func(context.Context, Program) bool) Program {
	for at := len(p) - n; at >= 0 && ctx.Err() == nil; at -= n {
		if smaller := slices.Delete(slices.Clone(p), at, at+n); fails(ctx, smaller) {
			p = smaller
		}
		at = min(at, len(p))
	}
	return p
}

// simpler are the programs with one thing less.
func simpler(p Program) []Program {
	var out []Program
	with := func(i int, s Step) { q := slices.Clone(p); q[i] = s; out = append(out, q) }
	for i, s := range p {
		out = append(out, slices.Delete(slices.Clone(p), i, i+1))
		if s.Crash {
			with(i, Step{Ops: s.Ops})
		}
		for j, o := range s.Ops {
			if len(s.Ops) > 1 {
				with(i, Step{Ops: slices.Delete(slices.Clone(s.Ops), j, j+1), Crash: s.Crash})
			}
			if o.Cut {
				o.Cut = false
				ops := slices.Clone(s.Ops)
				ops[j] = o
				with(i, Step{Ops: ops, Crash: s.Crash})
			}
		}
	}
	return out
}
