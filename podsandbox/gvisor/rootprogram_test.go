package gvisor

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// A program that nobody waits for any more is not left to run: what a container has put
// on its way may never answer.
func TestRunProgramEndsWithItsContext(t *testing.T) {
	p := startPod(t)
	program, err := memoryFile("pause", guest.Pause())
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	before, err := p.control.processes(testContext(t), p.cfg.ID)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	if _, err := p.programs.run(ctx, rootProgram{file: program, args: []string{"pause"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	eventually(t, func() error {
		after, err := p.control.processes(testContext(t), p.cfg.ID)
		if err == nil && len(after) != len(before) {
			err = fmt.Errorf("the root container has %v, and had %v", after, before)
		}
		return err
	})
}
