package engine

import "context"

// Finder finds the processes of sandboxes on the node, also of those that nobody knows
// any more. Each Engine is one, and its package has one for those who have no engine,
// such as a check of the node beside a running daemon.
type Finder interface {
	// Find lists the processes of all sandboxes whose Config.Dir lies below dir. No user
	// can make a process that looks like one. As a sandbox may rewrite what its
	// processes say of themselves, a process is also one if it is in the cgroup of one
	// of these pods, by their ids.
	Find(dir string, pods map[string]bool) ([]Found, error)
}

// Found is a process of a sandbox.
type Found struct {
	Process
	Sandbox string // its id
	Role    string // "sandbox" for the process that is it, else what it is for, such as "gofer"

	// Kill ends the process and waits until it is gone; one that is gone already is
	// no error.
	Kill func(context.Context) error
}
