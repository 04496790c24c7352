package podsandbox

import (
	"context"
	"encoding/json"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// adjust lets plugins change what was resolved of a request.
func (b *specMaker) adjust(ctx context.Context, c *state.Container, s *specs.Spec) error {
	if b.plugins == nil {
		return nil
	}
	before, err := copySpec(s)
	if err != nil {
		return err
	}
	after, err := copySpec(s)
	if err != nil {
		return err
	}
	change, err := b.plugins.CreateContainer(ctx, nri.PodOf(c.Pod), nri.ContainerOf(c, after))
	if err != nil {
		return err
	}
	if err := b.changesOf(c)(before, after); err != nil {
		return fmt.Errorf("NRI plugins on CreateContainer: %w", err)
	}
	*s = *after
	if change == nil {
		return nil
	}
	return b.resources.AdjustByPlugins(c, s, change)
}

// copySpec shares no memory with s.
func copySpec(s *specs.Spec) (*specs.Spec, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("copy spec: %w", err)
	}
	out := new(specs.Spec)
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("copy spec: %w", err)
	}
	return out, nil
}
