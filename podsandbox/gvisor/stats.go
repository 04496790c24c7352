package gvisor

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// cgroupReads are what is read of each container, in this order.
var cgroupReads = []cgroupFile{
	{Controller: "memory", Name: "memory.current"},
	{Controller: "pids", Name: "pids.current"},
	{Controller: "cpu", Name: "cpu.stat"},
}

// Stats implements engine.Sandbox. It is one call, however many containers there
// are: each has a cgroup in the sandbox, because each has a cgroup mount.
func (s *Sandbox) Stats(ctx context.Context) (map[string]engine.Usage, error) {
	ids := s.containers.ids()
	usage := make(map[string]engine.Usage, len(ids))
	if len(ids) == 0 {
		return usage, nil
	}
	var args cgroupReadArgs
	for _, id := range ids {
		for _, f := range cgroupReads {
			f.Path = "/" + id
			args.Args = append(args.Args, cgroupReadArg{File: f})
		}
	}
	var out cgroupResults
	if err := s.control.call(ctx, methodReadCgroup, args, &out); err != nil {
		return nil, err
	}
	for i, id := range ids {
		n := len(cgroupReads)
		if len(out.Results) < (i+1)*n {
			break
		}
		if u, ok := usageOf(out.Results[i*n : (i+1)*n]); ok {
			// More than there is would be added up for the pod and the node.
			u.MemoryBytes = min(u.MemoryBytes, s.engine.hostMemory)
			usage[id] = u
		}
	}
	return usage, nil
}

// usageOf reads the results of cgroupReads for one container. It is not running
// if it has no cgroup or no process.
func usageOf(r []cgroupResult) (engine.Usage, bool) {
	for _, x := range r {
		if x.IsError {
			return engine.Usage{}, false
		}
	}
	var u engine.Usage
	var err1, err2 error
	u.MemoryBytes, err1 = strconv.ParseUint(strings.TrimSpace(r[0].Data), 10, 64)
	u.Pids, err2 = strconv.ParseUint(strings.TrimSpace(r[1].Data), 10, 31)
	if err1 != nil || err2 != nil || u.Pids == 0 {
		return engine.Usage{}, false
	}
	times := map[string]*time.Duration{"usage_usec": &u.CPU, "user_usec": &u.CPUUser, "system_usec": &u.CPUSystem}
	for line := range strings.Lines(r[2].Data) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		into := times[key]
		if into == nil {
			continue
		}
		usec, err := strconv.ParseUint(value, 10, 63)
		if err != nil || usec > math.MaxInt64/uint64(time.Microsecond) {
			return engine.Usage{}, false
		}
		*into = time.Duration(usec) * time.Microsecond
	}
	// It has run, but for less than a tick of the Sentry's clock, or is not yet in
	// its count of pages. Readers of metrics take zero for no answer, and drop the
	// whole pod.
	if u.CPU == 0 {
		u.CPU, u.CPUSystem = time.Microsecond, time.Microsecond
	}
	u.MemoryBytes = max(u.MemoryBytes, 4096)
	return u, true
}
