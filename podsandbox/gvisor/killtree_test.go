package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestNewGroupsOfATree(t *testing.T) {
	for name, c := range map[string]struct {
		ps    []guestProcess // root is 10
		known []int32
		want  []int32
	}{
		"none":                  {ps: []guestProcess{{1, 0, 1}, {2, 1, 1}}},
		"the root's":            {ps: []guestProcess{{1, 0, 1}, {10, 0, 10}}, want: []int32{10}},
		"of descendants":        {ps: []guestProcess{{10, 0, 10}, {11, 10, 11}, {12, 11, 12}, {13, 1, 13}}, want: []int32{10, 11, 12}},
		"children before":       {ps: []guestProcess{{5, 6, 5}, {6, 10, 6}, {10, 0, 10}}, want: []int32{5, 6, 10}},
		"of an ended root":      {ps: []guestProcess{{11, 10, 11}}, want: []int32{11}},
		"below a known group":   {ps: []guestProcess{{12, 1, 11}, {13, 12, 13}}, known: []int32{10, 11}, want: []int32{13}},
		"nothing new":           {ps: []guestProcess{{10, 0, 10}, {11, 10, 11}}, known: []int32{10, 11}},
		"a ring":                {ps: []guestProcess{{10, 12, 10}, {11, 10, 11}, {12, 11, 12}}, want: []int32{10, 11, 12}},
		"its own parent":        {ps: []guestProcess{{10, 10, 10}}, want: []int32{10}},
		"twice the same number": {ps: []guestProcess{{10, 0, 10}, {10, 0, 10}}, want: []int32{10}},
		"no group":              {ps: []guestProcess{{10, 0, 0}, {11, 10, -1}, {12, 10, -2147483648}}},
	} {
		known := map[int32]bool{}
		for _, g := range c.known {
			known[g] = true
		}
		got := newGroups(c.ps, 10, known)
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// A list of processes as long as a sandbox may send, in the worst order, is walked
// in no time: it was seen to take minutes where the time grew with its square.
func TestNewGroupsOfAHugeTree(t *testing.T) {
	const many = 200_000
	ps := make([]guestProcess, many)
	for i := range ps { // each is the parent of the one before it
		ps[i] = guestProcess{PID: int32(many - i), PPID: int32(many - i - 1), PGID: int32(many - i)}
	}
	done := make(chan int, 1)
	go func() { done <- len(newGroups(ps, 1, map[int32]bool{})) }()
	select {
	case n := <-done:
		if n != many {
			t.Errorf("%d groups, want %d", n, many)
		}
	case <-time.After(20 * time.Second):
		t.Error("it takes too long")
	}
}

// groupClaims is a sandbox that claims ever new groups, and what it is sent.
type groupClaims struct {
	mu    sync.Mutex
	first int32 // +checklocks:mu
	// Groups by signal.
	signals map[int32]map[int32]bool // +checklocks:mu
	onStop  func(stopped int)        // +checklocks:mu
}

func (c *groupClaims) answer(t *testing.T) func(string, signalArgs, net.Conn) {
	return func(method string, arg signalArgs, conn net.Conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch method {
		case methodSignal:
			if c.signals[arg.Signo] == nil {
				c.signals[arg.Signo] = map[int32]bool{}
			}
			c.signals[arg.Signo][arg.PID] = true
			if arg.Signo == int32(unix.SIGSTOP) {
				c.onStop(len(c.signals[arg.Signo]))
			}
			_, _ = conn.Write([]byte(`{"success":true}`))
		case methodProcesses:
			var ps []guestProcess
			for range 2 * maxGroups {
				c.first++
				ps = append(ps, guestProcess{PID: c.first, PPID: 1, PGID: c.first})
			}
			b, err := json.Marshal(ps)
			if err != nil {
				t.Error(err)
			}
			_, _ = fmt.Fprintf(conn, `{"success":true,"result":%s}`, b)
		}
	}
}

func (c *groupClaims) sent(sig unix.Signal) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.signals[int32(sig)])
}

func newClaims(t *testing.T, onStop func(stopped int)) (*groupClaims, *brokenOut, *startedExec) {
	c := &groupClaims{first: 100, signals: map[int32]map[int32]bool{}, onStop: onStop}
	answer := c.answer(t)
	b := newBrokenOut(t, newTestEngine(t), func(method string, arg json.RawMessage, conn net.Conn) {
		var a signalArgs
		_ = json.Unmarshal(arg, &a)
		answer(method, a, conn)
	})
	e := &startedExec{pid: 7, root: 1, found: make(chan struct{})}
	close(e.found)
	return c, b, e
}

// A sandbox that claims ever new groups is sent a bounded number of signals.
func TestKillTreeIsBounded(t *testing.T) {
	c, b, e := newClaims(t, func(int) {})
	if err := b.processes.killTree(testContext(t), "c", e); err != nil {
		t.Error(err)
	}
	if stops, kills := c.sent(unix.SIGSTOP), c.sent(unix.SIGKILL); stops != maxGroups || kills != maxGroups {
		t.Errorf("%d groups stopped and %d killed, want %d", stops, kills, maxGroups)
	}
}

// A caller that goes away is not kept, and what was stopped by then is killed.
func TestKillTreeWhoseCallerGoesAway(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	c, b, e := newClaims(t, func(stopped int) {
		if stopped == 10 {
			cancel()
		}
	})
	if err := b.processes.killTree(ctx, "c", e); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want Canceled", err)
	}
	eventually(t, func() error {
		stops, kills := c.sent(unix.SIGSTOP), c.sent(unix.SIGKILL)
		if kills < stops {
			return fmt.Errorf("%d groups stopped and %d killed", stops, kills)
		}
		return nil
	})
	if stops := c.sent(unix.SIGSTOP); stops > 11 {
		t.Errorf("%d groups were stopped for a caller that had gone at the tenth", stops)
	}
}
