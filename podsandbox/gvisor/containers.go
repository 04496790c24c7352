package gvisor

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// container is what this daemon knows of a container.
type container struct {
	id string

	// turn is held across Create, Start and Destroy of this container, so that
	// they do not overlap; calls of other containers go on.
	turn  slot
	gofer *gofer // guarded by turn; nil until Create, and after an adoption
	lent  bool   // guarded by containers.mu: another container has joined one of its volumes

	// joining is the container that was last let into this one's pid namespace, if it
	// was not started there; guarded by turn.
	joining string

	// execs is held while an exec is begun. It guards parentless, the processes
	// without a parent when they were last listed; see findRoot.
	execs      slot
	parentless map[int32]bool
}

func newContainerEntry(id string) *container {
	return &container{id: id, turn: newSlot(), execs: newSlot()}
}

// lock takes the container's turn, or says whom it would have to wait for.
func (c *container) lock(ctx context.Context) error {
	if err := c.turn.lock(ctx); err != nil {
		return fmt.Errorf("another call is at work on it: %w", err)
	}
	return nil
}

// containers is the register of a sandbox's containers. It also owns the gofers that
// outlive their containers, for the others that have joined their volumes. Its lock is
// held for a look into memory alone, never across a call.
type containers struct {
	mu   sync.Mutex
	byID map[string]*container // +checklocks:mu
	// They serve what other containers have joined.
	retired []*gofer // +checklocks:mu
}

func newContainers() *containers { return &containers{byID: map[string]*container{}} }

// get returns the entry of a container, which it makes if there is none.
func (cs *containers) get(id string) *container {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.byID[id]
	if c == nil {
		c = newContainerEntry(id)
		cs.byID[id] = c
	}
	return c
}

func (cs *containers) ids() []string {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	ids := make([]string, 0, len(cs.byID))
	for id := range cs.byID {
		ids = append(ids, id)
	}
	return ids
}

func (cs *containers) remove(c *container) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.byID[c.id] == c {
		delete(cs.byID, c.id)
	}
}

// removeUnknown drops the entry of a container that the sandbox does not know,
// unless it was created here and not started yet.
//
// +checklocksignore: it only tries to lock.
func (cs *containers) removeUnknown(c *container) {
	if c.turn.tryLock() { // else something is being done with it
		defer c.turn.unlock()
		if c.gofer == nil {
			cs.remove(c)
		}
	}
}

// lend notes that the gofer of a container serves another one, too.
func (cs *containers) lend(id string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.byID[id]; c != nil {
		c.lent = true
	}
}

// stopGofer ends the gofer of a container that has ended, or leaves it to those that
// have joined its volumes: it ends by itself when the last of them has. The container's
// turn is held.
func (cs *containers) stopGofer(ctx context.Context, c *container, sentryDead bool) error {
	if !sentryDead && cs.retireGofer(c) {
		return nil
	}
	return c.stopGofer(ctx, sentryDead)
}

func (cs *containers) retireGofer(c *container) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if !c.lent || c.gofer == nil {
		return false
	}
	c.gofer.closeConns()
	cs.retired = append(slices.DeleteFunc(cs.retired, func(g *gofer) bool { return g.proc.ended() }), c.gofer)
	c.gofer = nil
	return true
}

// stopAllGofers ends them when the Sentry has ended.
func (cs *containers) stopAllGofers(ctx context.Context) error {
	for _, c := range cs.withGofers() {
		if err := c.lock(ctx); err != nil {
			return err
		}
		err := c.stopGofer(ctx, true)
		c.turn.unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// withGofers are all containers, and entries for the retired gofers, which are taken.
func (cs *containers) withGofers() []*container {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := make([]*container, 0, len(cs.byID)+len(cs.retired))
	for _, c := range cs.byID {
		all = append(all, c)
	}
	for _, g := range cs.retired {
		entry := newContainerEntry("") // of one that was destroyed
		entry.gofer = g
		all = append(all, entry)
	}
	cs.retired = nil
	return all
}
