package image

import (
	"slices"
	"strings"
	"time"
)

// Running is a pull under way.
type Running struct {
	Name     string    `json:"name"`     // full
	Since    time.Time `json:"since"`    // when it was begun
	Callers  int       `json:"callers"`  // who wait for it
	Received int64     `json:"received"` // bytes from registries so far
}

// Running lists the pulls under way, by name.
func (s *Store) Running() []Running { return s.pulls.list() }

func (p *puller) list() []Running {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]Running, 0, len(p.running))
	for name, one := range p.running {
		list = append(list, Running{Name: name, Since: one.since, Callers: one.callers, Received: one.traffic.received.Load()})
	}
	slices.SortFunc(list, func(a, b Running) int { return strings.Compare(a.Name, b.Name) })
	return list
}
