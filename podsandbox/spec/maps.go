package spec

import (
	"maps"
	"slices"
)

// sortedKeys makes what is built or reported from a map the same each time.
func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
