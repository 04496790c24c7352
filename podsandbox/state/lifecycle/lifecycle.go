// Package lifecycle is the one place that knows which phase of a pod or a
// container may follow which. It is pure: no I/O, no clock, no locks.
//
// A pod:
//
//	          Booted            Died
//	Creating ───────> Ready ───────────> Dead
//	   │                │                 │
//	   │ Stop           │ Stop            │ Stop
//	   └──────────────> Stopping <────────┘
//	                    │ Released
//	                    v        Remove
//	                 Stopped ───────────> Removing ──> (record deleted)
//
// A container:
//
//	          Prepared          Start             Started
//	Creating ─────────> Created <─────> Starting ─────────> Running
//	   │                   │                │                  │ Ended
//	   │ Remove            │ Ended          │ Ended            v
//	   │                   └────────────────┴──────────────> Exited
//	   v                   Remove                              │ Remove
//	Removing <────────────────────────────────────────────────┘
//
// Back to Created goes a container whose start never arrived in the sandbox, because
// the daemon died (StartLost).
//
// Died is the end of a sandbox that nobody asked for; in a pod that is being stopped
// the end is no event of its own.
//
// Every phase is written to disk before what it announces is done, so a crash
// leaves a phase that start-up can finish (Stopping, Removing) or undo (Creating).
package lifecycle

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
)

// Phase is a state of a pod or a container, as it stands in the record.
type Phase string

// The phases. Pods and containers share Creating and Removing.
const (
	Creating Phase = "creating" // recorded; not yet visible to the caller
	Removing Phase = "removing" // being deleted; start-up finishes it

	// Pods.
	Ready    Phase = "ready"
	Dead     Phase = "dead"     // the sandbox ended by itself; host resources are still held
	Stopping Phase = "stopping" // host resources are being given back
	Stopped  Phase = "stopped"  // nothing is held but the record

	// Containers.
	Created  Phase = "created"
	Starting Phase = "starting" // the start call is out; it may or may not have happened
	Running  Phase = "running"
	Exited   Phase = "exited"
)

// Event is what happened or what is asked for.
type Event string

// The events.
const (
	Booted   Event = "booted"
	Died     Event = "died"
	Stop     Event = "stop"
	Released Event = "released"
	Remove   Event = "remove"

	Prepared Event = "prepared"
	Start    Event = "start"
	Started  Event = "started"
	// StartLost is found out after a crash: the start did not happen.
	StartLost Event = "start lost"
	Ended     Event = "ended"
)

// Machine is a table of legal transitions.
type Machine struct {
	name  string
	table map[Phase]map[Event]Phase
}

// Pod is the life of a pod. Stop in Stopping and Remove in Removing lead to the
// same phase: they are how an interrupted operation is taken up again.
var Pod = Machine{name: "pod", table: map[Phase]map[Event]Phase{
	Creating: {Booted: Ready, Stop: Stopping},
	Ready:    {Died: Dead, Stop: Stopping},
	Dead:     {Died: Dead, Stop: Stopping},
	Stopping: {Stop: Stopping, Released: Stopped},
	Stopped:  {Stop: Stopped, Released: Stopped, Remove: Removing},
	Removing: {Remove: Removing},
}}

// Container is the life of a container.
var Container = Machine{name: "container", table: map[Phase]map[Event]Phase{
	Creating: {Prepared: Created, Ended: Exited, Remove: Removing},
	Created:  {Start: Starting, Ended: Exited, Remove: Removing},
	Starting: {Started: Running, StartLost: Created, Ended: Exited},
	Running:  {Ended: Exited},
	Exited:   {Remove: Removing},
	Removing: {Remove: Removing},
}}

// Next returns the phase that follows. An event that the phase does not allow
// is errdefs.ErrFailedPrecondition.
func (m Machine) Next(from Phase, ev Event) (Phase, error) {
	if to, ok := m.table[from][ev]; ok {
		return to, nil
	}
	return from, fmt.Errorf("%s is %s, which does not allow %q: %w", m.name, from, ev, errdefs.ErrFailedPrecondition)
}

// Known tells whether a phase belongs to this machine; a record that names
// another one is damaged.
func (m Machine) Known(p Phase) bool {
	_, ok := m.table[p]
	return ok
}

// Phases are all phases of this machine, sorted: the crash tests go through them.
func (m Machine) Phases() []Phase { return slices.Sorted(maps.Keys(m.table)) }
