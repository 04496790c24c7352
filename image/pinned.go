package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Pinned decides by their names which images are pinned. The kubelet does not
// remove a pinned image when it makes space; an explicit removal does.
//
// A pattern is a name, in full or short ("busybox" is
// docker.io/library/busybox:latest); or the beginning of full names, with a '*'
// at its end; or a part of full names, with a '*' at both ends.
type Pinned struct {
	names, beginnings, parts []string
}

// ParsePinned checks patterns; a malformed one is errdefs.ErrInvalidArgument.
func ParsePinned(patterns []string) (Pinned, error) {
	var p Pinned
	for _, pattern := range patterns {
		text, open := strings.CutSuffix(pattern, "*")
		part, both := strings.CutPrefix(text, "*")
		if strings.Contains(part, "*") || both && !open || strings.TrimSpace(part) != part {
			return Pinned{}, fmt.Errorf("pinned image %q: a '*' stands at the end, or at both ends: %w", pattern, errdefs.ErrInvalidArgument)
		}
		switch {
		case both:
			p.parts = append(p.parts, part)
		case open:
			p.beginnings = append(p.beginnings, part)
		default:
			named, err := parseName(pattern)
			if err != nil {
				return Pinned{}, fmt.Errorf("pinned image: %w", err)
			}
			p.names = append(p.names, named.String())
		}
	}
	return p, nil
}

// match reports whether a pattern takes one of these full names.
func (p Pinned) match(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return slices.Contains(p.names, name) ||
			slices.ContainsFunc(p.beginnings, func(b string) bool { return strings.HasPrefix(name, b) }) ||
			slices.ContainsFunc(p.parts, func(part string) bool { return strings.Contains(name, part) })
	})
}
