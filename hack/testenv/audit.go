package testenv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Observation is what belongs to the environment on the machine at one moment,
// by kind. Each item names the thing so that a person finds it.
type Observation map[string][]string

// Kinds are the keys of an Observation, in the order of reports.
var Kinds = []string{"process", "mount", "link", "lease", "rule", "chain", "cgroup", "state", "record", "rootfs"}

// Since returns what o has and before had not, as "kind: item" lines.
func (o Observation) Since(before Observation) []string {
	var out []string
	for _, kind := range Kinds {
		for _, item := range o[kind] {
			if !slices.Contains(before[kind], item) {
				out = append(out, kind+": "+item)
			}
		}
	}
	return out
}

// String counts the items of each kind.
func (o Observation) String() string {
	var parts []string
	for _, kind := range Kinds {
		parts = append(parts, fmt.Sprintf("%s %d", kind, len(o[kind])))
	}
	return strings.Join(parts, ", ")
}

// Observe looks at everything now.
func (e *Env) Observe() (Observation, error) { return e.left.observe() }

// MarkBaseline makes this moment the one that Audit compares with. New does it
// when the daemon is ready. A test that counts snapshots or the views of an
// image does it again after its first pull, or its first pod.
func (e *Env) MarkBaseline() error {
	o, err := e.Observe()
	if err != nil {
		return err
	}
	e.baseline = o
	return nil
}

// Baseline returns what MarkBaseline saw last.
func (e *Env) Baseline() Observation { return e.baseline }

// Audit returns an error that lists everything that is there now and was not at
// the baseline. The kernel removes some things a moment after the call that asked
// for it (links of a dying namespace, processes), so it looks again for up to ten
// seconds before it complains.
func (e *Env) Audit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		o, err := e.Observe()
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		left := o.Since(e.baseline)
		if len(left) == 0 {
			return nil
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return errors.New("audit: left behind:\n  " + strings.Join(left, "\n  "))
		}
	}
}
