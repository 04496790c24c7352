package model

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// Environment variables that replay a test.
const (
	envSeed   = "MODEL_SEED"   // the seed of the first program, as it was printed
	envScript = "MODEL_SCRIPT" // a file with a program that is run instead
)

// corpus are the smallest programs that once showed a defect, of the runtime or of
// the model.
//
//go:embed corpus/*.txt
var corpus embed.FS

// tries is how often a smaller program is run that may fail.
const tries = 5

// Plan is how a test uses the model.
type Plan struct {
	// New makes a target; it is closed after each program.
	New func(testing.TB) (Target, func() error)
	// Variants make it a metamorphic test: each program is run on New without its
	// restarts, then on each variant with them, and all of it has to be answered
	// alike. Such programs have one request a step, so that there is one answer.
	Variants []Variant

	Steps    int           // of a program
	Duration time.Duration // for how long; `make soak` goes on for longer
	Shrink   time.Duration // how long a smaller program is looked for
}

// Variant is another configuration, of the daemon or of pods, that must not change an
// answer.
type Variant struct {
	Name string
	New  func(testing.TB) (Target, func() error)
}

// Check runs the corpus, and then random programs until the time is over or one
// fails. It prints seeds, and of a failure the smallest program that still fails.
func Check(t testing.TB, plan Plan) {
	t.Helper()
	if name := os.Getenv(envScript); name != "" {
		plan.runFile(t, os.DirFS(filepath.Dir(name)), filepath.Base(name))
		return
	}
	known, err := fs.Glob(corpus, "corpus/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range known {
		if plan.Variants == nil && !plan.runFile(t, corpus, name) {
			return
		}
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(envSeed); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	_, duration := testenv.Soak(plan.Duration)
	t.Logf("%s=%d", envSeed, seed)
	begin, n := time.Now(), 0
	for ; n == 0 || time.Since(begin) < duration; n++ {
		p := plan.generate(seed + uint64(n))
		if err := plan.run(t.Context(), t, p); err != nil {
			plan.report(t, seed+uint64(n), p, err)
			return
		}
	}
	t.Logf("%d programs of %d steps", n, plan.Steps)
}

// runFile runs a program that was written down.
func (plan Plan) runFile(t testing.TB, dir fs.FS, name string) bool {
	t.Helper()
	text, err := fs.ReadFile(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if err := plan.run(t.Context(), t, p); err != nil {
		t.Logf("%s fails", name)
		plan.report(t, 0, p, err)
		return false
	}
	return true
}

func (plan Plan) generate(seed uint64) Program {
	if plan.Variants != nil {
		return GenerateSteady(seed, plan.Steps)
	}
	return Generate(seed, plan.Steps)
}

// run runs a program on fresh targets.
func (plan Plan) run(ctx context.Context, t testing.TB, p Program) error {
	if plan.Variants == nil {
		return on(ctx, t, plan.New, func(ctx context.Context, target Target) error { return target.Run(ctx, p) })
	}
	var want []string
	err := on(ctx, t, plan.New, func(ctx context.Context, target Target) (err error) {
		want, err = target.answers(ctx, p, true)
		return err
	})
	for _, v := range plan.Variants {
		if err != nil {
			return err
		}
		err = v.as(on(ctx, t, v.New, func(ctx context.Context, target Target) error {
			got, err := target.answers(ctx, p, false)
			return cmp.Or(err, same(want, got))
		}))
	}
	return err
}

// on runs something on a fresh target. A fault of the daemon's own counts more than the
// difference that it made.
func on(ctx context.Context, t testing.TB, fresh func(testing.TB) (Target, func() error), do func(context.Context, Target) error) error {
	target, closeTarget := fresh(t)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	err := do(ctx, target)
	if target.Fault != nil {
		if fault := target.Fault(); fault != nil {
			err = fmt.Errorf("%w\nIts program ended with: %v", fault, err)
		}
	}
	if cerr := closeTarget(); err == nil {
		err = cerr
	}
	return err
}

// as says of a difference that it is the variant's.
func (v Variant) as(err error) error {
	var d *Difference
	if errors.As(err, &d) {
		d.variant, d.kind, d.Text = v.Name, v.Name+d.kind, fmt.Sprintf("%s: %s", v.Name, d.Text)
	}
	return err
}

// same compares what two runs were answered.
func same(want, got []string) error {
	for step := range min(len(want), len(got)) {
		w, g := strings.Split(want[step], "\n"), strings.Split(got[step], "\n")
		for i := range max(len(w), len(g)) {
			if w, g := line(w, i), line(g, i); w != g {
				return at(step, differ("the answers differ:\n%s\nand here\n%s", w, g))
			}
		}
	}
	return nil
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

func (plan Plan) report(t testing.TB, seed uint64, p Program, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var d *Difference
	if !errors.As(err, &d) {
		t.Fatalf("%s=%d: %v", envSeed, seed, err)
	}
	if d.Step < len(p) {
		p = p[:d.Step+1]
	}
	t.Logf("%s=%d: a program of %d steps fails: %v", envSeed, seed, len(p), err)
	last, kind := err, d.kind
	if plan.Variants != nil {
		plan.Variants = slices.DeleteFunc(slices.Clone(plan.Variants), func(v Variant) bool { return v.Name != d.variant })
	}
	small := Shrink(t.Context(), p, plan.Shrink, func(ctx context.Context, q Program) bool {
		for range tries { // a race is not lost each time
			err := plan.run(ctx, t, q)
			if ctx.Err() == nil && errors.As(err, &d) && d.kind == kind {
				last = err
				return true
			}
		}
		return false
	})
	name := fmt.Sprintf("%s/model-%d.txt", os.TempDir(), seed)
	if werr := os.WriteFile(name, []byte(small.String()), 0o644); werr != nil {
		name = werr.Error()
	}
	t.Errorf("%v\nThe smallest program found (%s=%s):\n%s", last, envScript, name, small)
}
