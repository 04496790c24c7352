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
func (s *Store) Running() []Running {
	s.pullMu.Lock()
	defer s.pullMu.Unlock()
	list := make([]Running, 0, len(s.pulls))
	for name, p := range s.pulls {
		list = append(list, Running{Name: name, Since: p.since, Callers: p.callers, Received: p.traffic.received.Load()})
	}
	slices.SortFunc(list, func(a, b Running) int { return strings.Compare(a.Name, b.Name) })
	return list
}
