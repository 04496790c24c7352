package podsandbox

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
)

// newID is 256 random bits in hex: the form that tools around CRI expect.
func newID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails, crypto/rand
	return hex.EncodeToString(b[:])
}

func (m *Manager) addPod(p *pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pods[p.id()] = p
	if !p.Status().Abandoned { // the identity may be another's already
		m.podNames[podKey(p.config().GetMetadata())] = p
	}
}

func (m *Manager) dropPod(p *pod) {
	m.freeName(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, p.id())
}

// freeName lets another pod have this one's identity.
func (m *Manager) freeName(p *pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := podKey(p.config().GetMetadata())
	if m.podNames[key] == p {
		delete(m.podNames, key)
	}
}

func (m *Manager) addContainer(c *container) {
	m.mu.Lock()
	m.containers[c.id()] = c
	m.ctrNames[containerKey(c.pod.id(), c.config().GetMetadata())] = c
	m.mu.Unlock()
	c.pod.mu.Lock()
	c.pod.containers[c.id()] = c
	c.pod.mu.Unlock()
}

func (m *Manager) dropContainer(c *container) {
	m.mu.Lock()
	delete(m.containers, c.id())
	key := containerKey(c.pod.id(), c.config().GetMetadata())
	if m.ctrNames[key] == c {
		delete(m.ctrNames, key)
	}
	m.mu.Unlock()
	c.pod.mu.Lock()
	delete(c.pod.containers, c.id())
	c.pod.mu.Unlock()
}

func (m *Manager) podNamed(key string) *pod {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.podNames[key]
}

func (m *Manager) containerNamed(key string) *container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.ctrNames[key]
}

// findPod takes an id or a prefix of exactly one.
func (m *Manager) findPod(id string) (*pod, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return find(m.pods, "pod", id)
}

// findContainer takes an id or a prefix of exactly one.
func (m *Manager) findContainer(id string) (*container, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return find(m.containers, "container", id)
}

func find[T any](all map[string]T, kind, id string) (T, error) {
	var found T
	if id == "" {
		return found, fmt.Errorf("%s id is empty: %w", kind, errdefs.ErrInvalidArgument)
	}
	if v, ok := all[id]; ok {
		return v, nil
	}
	n := 0
	for full, v := range all {
		if strings.HasPrefix(full, id) {
			found = v
			n++
		}
	}
	switch n {
	case 1:
		return found, nil
	case 0:
		return found, fmt.Errorf("%s %q does not exist: %w", kind, id, errdefs.ErrNotFound)
	}
	var none T
	return none, fmt.Errorf("%s id %q is the beginning of %d ids, give more of it: %w", kind, id, n, errdefs.ErrInvalidArgument)
}

// allPods are ordered by the time of creation.
func (m *Manager) allPods() []*pod {
	m.mu.RLock()
	defer m.mu.RUnlock()
	ps := make([]*pod, 0, len(m.pods))
	for _, p := range m.pods {
		ps = append(ps, p)
	}
	sort.Slice(ps, func(i, j int) bool { return ps[i].Meta.CreatedAt < ps[j].Meta.CreatedAt })
	return ps
}

// allContainers are ordered by the time of creation.
func (m *Manager) allContainers() []*container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	cs := make([]*container, 0, len(m.containers))
	for _, c := range m.containers {
		cs = append(cs, c)
	}
	sort.Slice(cs, func(i, j int) bool { return cs[i].Meta.CreatedAt < cs[j].Meta.CreatedAt })
	return cs
}
