package model

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
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
	New      func(testing.TB) (Target, func() error)
	Steps    int           // of a program
	Duration time.Duration // for how long; `make soak` goes on for longer
	Shrink   time.Duration // how long a smaller program is looked for
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
		if !plan.runFile(t, corpus, name) {
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
		p := Generate(seed+uint64(n), plan.Steps)
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

// run runs a program on a fresh target.
func (plan Plan) run(ctx context.Context, t testing.TB, p Program) error {
	target, closeTarget := plan.New(t)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	err := target.Run(ctx, p)
	if cerr := closeTarget(); err == nil {
		err = cerr
	}
	return err
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
