package stream

import (
	"context"
	"fmt"
	"os"

	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/logs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
)

// Open makes the FIFOs of a container that is being created, and starts its log.
func (s *Service) Open(c *state.Container) error {
	dir := s.paths.Streams(c.Pod.ID(), c.ID())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of streams: %w", err)
	}
	crashpoint.Here("before streams")
	opened, err := logs.Create(s.config(c))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	crashpoint.Here("after streams")
	c.SetStreams(opened)
	return nil
}

// Reopen takes over the streams of a container from an earlier daemon.
func (s *Service) Reopen(c *state.Container) error {
	opened, err := logs.Open(s.config(c))
	if err != nil {
		return fmt.Errorf("reopen streams: %w", err)
	}
	c.SetStreams(opened)
	return nil
}

func (s *Service) config(c *state.Container) logs.Config {
	return logs.Config{
		Dir: s.paths.Streams(c.Pod.ID(), c.ID()), LogPath: c.Meta.LogPath, LogDir: c.Pod.Config().GetLogDirectory(),
		Stdin: c.Config().GetStdin() && !c.Config().GetTty(), Terminal: c.Config().GetTty(),
	}
}

// Finish writes the rest of what an ended container has printed to its log. On a disk at
// fault that goes on until the container is removed; its end is told meanwhile.
func (s *Service) Finish(ctx context.Context, c *state.Container) {
	finishTerminal(ctx, c)
	streams := c.TakeStreams()
	if streams == nil {
		return // another path is at it
	}
	err := streams.Finish(ctx)
	if err == nil {
		return
	}
	klog.ErrorS(err, "Failed to drain the log of an ended container; it will be tried again", "container", c.ID())
	c.SetStreams(streams) // for its removal, which closes them
	s.work.Retry("drain the log of container "+c.ID(), s.timeout, func(ctx context.Context) error {
		if c.Streams() != streams {
			return nil
		}
		if err := streams.Finish(ctx); err != nil {
			return err
		}
		c.TakeStreams()
		return nil
	})
}
