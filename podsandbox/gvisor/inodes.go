package gvisor

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// Inodes implements engine.Sandbox. The Sentry tells how many inodes a file system
// has to nobody but to programs, by statfs(2). So one runs in the root container, as
// that which sets sysctls does: from there it sees the roots of all processes.
func (s *Sandbox) Inodes(ctx context.Context, ids []string) (map[string]uint64, error) {
	counts, err := s.inodes(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("count inodes of sandbox %s: %w", s.cfg.ID, err)
	}
	return counts, nil
}

func (s *Sandbox) inodes(ctx context.Context, ids []string) (map[string]uint64, error) {
	var running, paths []string
	for _, id := range ids {
		ps, err := s.processes(ctx, id)
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
	out, err := s.runCountInodes(ctx, paths)
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

// runCountInodes returns 8 bytes for each path.
func (s *Sandbox) runCountInodes(ctx context.Context, paths []string) ([]byte, error) {
	program, err := memoryFile("count-inodes", guest.CountInodes())
	if err != nil {
		return nil, err
	}
	defer program.Close()
	result := make([]byte, len(paths)*8)
	out, err := fixedMemoryFile("inodes", result)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	args, err := execArgsOf(s.cfg.ID, engine.Exec{Process: &specs.Process{
		Args: append([]string{"count-inodes"}, paths...), Cwd: "/", NoNewPrivileges: true,
		Capabilities: &specs.LinuxCapabilities{
			Effective: countCapabilities, Permitted: countCapabilities, Bounding: countCapabilities,
		},
	}})
	if err != nil {
		return nil, err
	}
	var pid int32
	null := s.engine.null
	if err := s.control.call(ctx, methodExec, args, &pid, null, out, null, program); err != nil {
		return nil, s.explain(err)
	}
	if _, err := s.wait(ctx, methodWaitPID, waitPIDArgs{PID: pid, CID: s.cfg.ID}); err != nil {
		return nil, err
	}
	_, err = out.ReadAt(result, 0)
	return result, err
}

// countCapabilities hold within the sandbox only.
var countCapabilities = []string{"CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"}
