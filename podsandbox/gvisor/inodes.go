package gvisor

import (
	"context"
	"encoding/binary"
	"math"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// Inodes implements engine.Counter. The Sentry tells how many inodes a file system
// has to nobody but to programs, by statfs(2).
func (s *Sandbox) Inodes(ctx context.Context, ids []string) (map[string]uint64, error) {
	return s.programs.countInodes(ctx, ids)
}

func (r *rootPrograms) countInodes(ctx context.Context, ids []string) (map[string]uint64, error) {
	var running, paths []string
	for _, id := range ids {
		ps, err := r.control.processes(ctx, id)
		if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) || err == nil && len(ps) == 0 {
			continue // not running
		}
		if err != nil {
			return nil, err
		}
		running = append(running, id)
		paths = append(paths, "/proc/"+strconv.Itoa(int(ps[0].PID))+"/root")
	}
	counts := map[string]uint64{}
	if len(running) == 0 {
		return counts, nil
	}
	out, err := r.ask(ctx, "count-inodes", guest.CountInodes(), paths, len(paths)*8)
	if err != nil {
		return nil, err
	}
	for i, id := range running {
		if n := binary.LittleEndian.Uint64(out[i*8:]); n != math.MaxUint64 { // else it has just ended
			counts[id] = n
		}
	}
	return counts, nil
}
