package stream

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

// ReopenContainerLog opens the log file anew after a rotation.
func (s *Service) ReopenContainerLog(_ context.Context, id string) error {
	c, err := s.pods.FindContainer(id)
	if err != nil {
		return err
	}
	if err := c.RequireRunning(); err != nil {
		return err
	}
	streams := c.Streams()
	if streams == nil {
		return fmt.Errorf("container %s has just ended: %w", c.ID(), errdefs.ErrFailedPrecondition)
	}
	if err := streams.Reopen(); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", c.ID(), err)
	}
	return nil
}
