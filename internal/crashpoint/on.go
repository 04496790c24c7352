//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Enabled is true in builds with the tag "crashpoints".
const Enabled = true

const anyStep = "*"

var armed = readEnvironment()

// state is where this process is to die, and how far it has got.
type state struct {
	step  string   // +checklocksignore: does not change
	trace *os.File // +checklocksignore: likewise; nil unless asked for

	mu sync.Mutex
	// Times that step is still to be reached.
	left int // +checklocks:mu
}

// readEnvironment ends the process when it cannot obey: a test must not pass
// because its crash never came.
func readEnvironment() *state {
	s := &state{}
	if at := os.Getenv("CRI_SANDBOX_CRASH_AT"); at != "" {
		step, times, ok := strings.Cut(at, "#")
		n, err := strconv.Atoi(times)
		if !ok || err != nil || n < 1 {
			fail(fmt.Errorf("CRI_SANDBOX_CRASH_AT=%q is not STEP#N", at))
		}
		s.step, s.left = step, n
	}
	if path := os.Getenv("CRI_SANDBOX_CRASH_TRACE"); path != "" {
		var err error
		if s.trace, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			fail(err)
		}
	}
	return s
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "crash points:", err)
	os.Exit(1)
}

// Here marks a step. It does not return when it is the one to die at.
func Here(step string) {
	s := armed
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trace != nil {
		fmt.Fprintln(s.trace, step)
	}
	if s.left == 0 || s.step != anyStep && s.step != step {
		return
	}
	if s.left--; s.left == 0 {
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {} // until it arrives
	}
}
