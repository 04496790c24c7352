// Package state owns what is known of the pods and containers of a node: their records
// on disk (package record), the phases of their lives (package lifecycle), the handles
// of what runs for them, and the events that tell of both. It starts and ends nothing.
//
// Every change goes one way, Pod.Transition and Container.Transition: the phase follows
// from the table of the life cycle, the record is written, memory follows, and who
// listens is told. What a disk at fault must not hold up is forced: memory first, and
// the record as soon as it can be written.
//
// Locks, in the order in which they are taken:
//
//	Pod.exclusive        over the taking over and the ending of a sandbox as a whole;
//	                     waiting for it ends with a context
//	Container.Updating   over an update of the container's resources, the call to its
//	                     sandbox included
//	Size                 over what changes the size of the pod's cgroup: records and
//	                     control files
//	Pod.order            over the write of one record and its event, so that a pod's
//	                     events have the order of its records
//	record.entry.writing over the write of one record
//	Registry.mu          over the maps of ids and names
//	Pod.mu, Container.mu over the handles
//	broadcaster.mu       over the making of one event, from memory alone
//	record.entry.mu      over the status in memory
//
// The last four are held for memory alone, never over the disk or a call, so that who
// lists, asks for a status or is told of an event waits for nobody.
package state
