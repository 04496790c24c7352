package gvisor

import (
	"context"
	"encoding/binary"
	"math"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// maxCountedProcesses is how many processes of a sandbox are looked at. A container
// that does not fit beside those before it is not counted.
const maxCountedProcesses = 4096

// Descriptors implements engine.Counter. A program in the root container reads them
// in /proc, as ask explains.
func (s *Sandbox) Descriptors(ctx context.Context, ids []string) (map[string]engine.Descriptors, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	return s.programs.countDescriptors(ctx, ids)
}

func (r *rootPrograms) countDescriptors(ctx context.Context, ids []string) (map[string]engine.Descriptors, error) {
	var owners, directories []string
	for _, id := range ids {
		ps, err := r.control.processes(ctx, id)
		if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
			continue // not running
		}
		if err != nil {
			return nil, err
		}
		if len(directories)+len(ps) > maxCountedProcesses {
			continue
		}
		for _, p := range ps {
			owners = append(owners, id)
			directories = append(directories, "/proc/"+strconv.Itoa(int(p.PID))+"/fd")
		}
	}
	counts := map[string]engine.Descriptors{}
	if len(directories) == 0 {
		return counts, nil
	}
	out, err := r.ask(ctx, "count-descriptors", guest.CountDescriptors(), directories, len(directories)*16)
	if err != nil {
		return nil, err
	}
	for i, id := range owners {
		files, sockets := binary.LittleEndian.Uint64(out[i*16:]), binary.LittleEndian.Uint64(out[i*16+8:])
		if files == math.MaxUint64 {
			continue // the process has just ended
		}
		d := counts[id]
		d.Open += files
		d.Sockets += sockets
		counts[id] = d
	}
	return counts, nil
}
