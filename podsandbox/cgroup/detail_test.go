package cgroup

import (
	"errors"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestDetailParsing(t *testing.T) {
	v1 := fakeHost(t, 1, map[string]string{
		"cpu/cri-sandbox/id/cpu.stat":                                    "nr_periods 10\nnr_throttled 4\nthrottled_time 7000\n",
		"memory/cri-sandbox/id/memory.stat":                              "cache 1\ntotal_cache 11\ntotal_mapped_file 12\ntotal_swap 13\ntotal_active_file 14\ntotal_inactive_file 15\n",
		"memory/cri-sandbox/id/memory.kmem.usage_in_bytes":               "16\n",
		"memory/cri-sandbox/id/memory.max_usage_in_bytes":                "17\n",
		"memory/cri-sandbox/id/memory.failcnt":                           "18\n",
		"blkio/cri-sandbox/id/blkio.throttle.io_service_bytes_recursive": "259:1 Read 5\n259:1 Write 6\n8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 0\n8:0 Total 12288\nTotal 12299\n",
		"blkio/cri-sandbox/id/blkio.throttle.io_serviced_recursive":      "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
	})
	v1.mounts = append(v1.mounts, mount{v1.mounts[0].dir + "/../blkio", []string{"blkio"}})
	v2 := fakeHost(t, 2, map[string]string{
		"cri-sandbox/id/cpu.stat":            "usage_usec 70\nnr_periods 10\nnr_throttled 4\nthrottled_usec 7\n",
		"cri-sandbox/id/memory.stat":         "file 11\nfile_mapped 12\nactive_file 14\ninactive_file 15\nkernel 16\n",
		"cri-sandbox/id/memory.swap.current": "13\n",
		"cri-sandbox/id/memory.peak":         "17\n",
		"cri-sandbox/id/memory.events":       "low 0\nmax 18\noom 1\n",
		"cri-sandbox/id/io.stat":             "259:1 rbytes=5 wbytes=6 rios=0 wios=0 dbytes=0 dios=0\n8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0\n",
	})
	want := Detail{
		Cache: 11, MappedFile: 12, Swap: 13, ActiveFile: 14, InactiveFile: 15, Kernel: 16, PeakUsage: 17, LimitHits: 18,
		Periods: 10, ThrottledPeriods: 4, ThrottledTime: 7 * time.Microsecond,
		IO: []DeviceIO{
			{Major: 8, ReadBytes: 4096, WrittenBytes: 8192, Reads: 1, Writes: 2},
			{Major: 259, Minor: 1, ReadBytes: 5, WrittenBytes: 6},
		},
	}
	for _, h := range []*host{v1, v2} {
		g, err := h.load("", "id")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := g.Detail(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("v%d: got %+v, %v, want %+v", h.version, got, err, want)
		}
	}
}

func TestDetailNotCountedIsZero(t *testing.T) {
	g, err := fakeHost(t, 2, map[string]string{"cri-sandbox/id/cgroup.procs": ""}).load("", "id")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := g.Detail(); err != nil || !reflect.DeepEqual(got, Detail{}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestStatsOfAnUnreadableGroup: no counter says 0 when it could not be read.
func TestStatsOfAnUnreadableGroup(t *testing.T) {
	for name, c := range map[string]struct {
		version int
		files   map[string]string // one in the place of a file makes it a directory
		want    error
	}{
		"v1, all of it":    {1, map[string]string{"memory/cri-sandbox/id/memory.usage_in_bytes/x": "", "cpuacct/cri-sandbox/id/cpuacct.usage/x": ""}, unix.EISDIR},
		"v1, memory alone": {1, map[string]string{"memory/cri-sandbox/id/memory.usage_in_bytes/x": "", "cpuacct/cri-sandbox/id/cpuacct.usage": "5\n"}, unix.EISDIR},
		"v1, partly gone":  {1, map[string]string{"cpuacct/cri-sandbox/id/cpuacct.usage": "5\n"}, errdefs.ErrNotFound},
		"v2":               {2, map[string]string{"cri-sandbox/id/cpu.stat": "usage_usec 5\n", "cri-sandbox/id/memory.current/x": ""}, unix.EISDIR},
		"no number":        {2, map[string]string{"cri-sandbox/id/cpu.stat": "usage_usec 5\n", "cri-sandbox/id/memory.current": "much\n"}, strconv.ErrSyntax},
		"not counted":      {2, map[string]string{"cri-sandbox/id/cpu.stat": "usage_usec 5\n"}, nil},
	} {
		g, err := fakeHost(t, c.version, c.files).load("", "id")
		if err != nil {
			t.Fatal(err)
		}
		if s, err := g.Stats(); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %+v, %v, want %v", name, s, err, c.want)
		}
	}
}
