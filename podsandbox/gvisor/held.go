package gvisor

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// The fd store knows the outputs of a container by the container's id, and what
// the caller wants held by that id, a slash and the caller's name.

func heldName(id, name string) string { return id + "/" + name }

// heldBy matches all that is held for a container.
func heldBy(id string) func(string) bool {
	return func(key string) bool { return key == id || strings.HasPrefix(key, id+"/") }
}

// hold gives the fd store what must be open as long as the container lives. The
// slave side of a terminal is not: its master would never see the end.
func (s *Sandbox) hold(c engine.Container) error {
	if s.sentry.fdStore == nil {
		return nil // adopted from a daemon that made none; said then
	}
	if !c.Spec.Process.Terminal {
		if err := s.sentry.fdStore.keep(c.ID, c.Stdio[1:]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Hold)) {
		if err := s.sentry.fdStore.keep(heldName(c.ID, name), []*os.File{c.Hold[name]}); err != nil {
			return err
		}
	}
	return nil
}

// Held implements engine.Holder.
func (s *Sandbox) Held(id, name string) (*os.File, error) {
	if s.sentry.fdStore == nil {
		return nil, fmt.Errorf("the sandbox holds nothing for its containers: %w", errdefs.ErrNotFound)
	}
	f, err := s.sentry.fdStore.find(heldName(id, name))
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("the sandbox does not hold %q: %w", name, errdefs.ErrNotFound)
	}
	return f, err
}

// Release implements engine.Holder.
func (s *Sandbox) Release(id, name string) error {
	if s.sentry.fdStore == nil || s.sentry.proc.ended() {
		return nil
	}
	key := heldName(id, name)
	return s.sentry.fdStore.drop(func(k string) bool { return k == key })
}
