package cgroup

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Detail is what the host counts of a pod beyond Stats, for metrics. What the
// node does not count is 0.
type Detail struct {
	// Bytes of memory.
	Cache, MappedFile, Swap, Kernel, ActiveFile, InactiveFile uint64
	PeakUsage                                                 uint64
	LimitHits                                                 uint64 // how often the limit was reached

	// Of the CPU quota.
	Periods, ThrottledPeriods uint64
	ThrottledTime             time.Duration

	IO []DeviceIO // by device
}

// DeviceIO is what passed one block device.
type DeviceIO struct {
	Major, Minor            uint64
	ReadBytes, WrittenBytes uint64
	Reads, Writes           uint64
}

// Detail reads the counters, in about eight reads.
func (g *Group) Detail() (Detail, error) {
	c := counters{Group: g}
	read := c.detailV2
	if g.host.version == 1 {
		read = c.detailV1
	}
	d := read()
	return d, c.err()
}

func (c *counters) detailV1() Detail {
	var d Detail
	var throttled uint64
	c.fields("memory", "memory.stat", map[string]*uint64{
		"total_cache": &d.Cache, "total_mapped_file": &d.MappedFile, "total_swap": &d.Swap,
		"total_active_file": &d.ActiveFile, "total_inactive_file": &d.InactiveFile,
	})
	d.Kernel = c.number("memory", "memory.kmem.usage_in_bytes")
	d.PeakUsage = c.number("memory", "memory.max_usage_in_bytes")
	d.LimitHits = c.number("memory", "memory.failcnt")
	c.fields("cpu", "cpu.stat", map[string]*uint64{
		"nr_periods": &d.Periods, "nr_throttled": &d.ThrottledPeriods, "throttled_time": &throttled,
	})
	d.ThrottledTime = time.Duration(throttled)

	devices := map[string]*DeviceIO{}
	for file, fields := range map[string]func(*DeviceIO) (read, written *uint64){
		"blkio.throttle.io_service_bytes_recursive": func(d *DeviceIO) (*uint64, *uint64) { return &d.ReadBytes, &d.WrittenBytes },
		"blkio.throttle.io_serviced_recursive":      func(d *DeviceIO) (*uint64, *uint64) { return &d.Reads, &d.Writes },
	} {
		for line := range strings.Lines(c.file("blkio", file)) {
			f := strings.Fields(line) // "8:0 Read 4096"; the last line is a total
			if len(f) != 3 {
				continue
			}
			read, written := fields(device(devices, f[0]))
			switch f[1] {
			case "Read":
				*read, _ = strconv.ParseUint(f[2], 10, 64)
			case "Write":
				*written, _ = strconv.ParseUint(f[2], 10, 64)
			}
		}
	}
	d.IO = sortedDevices(devices)
	return d
}

func (c *counters) detailV2() Detail {
	var d Detail
	var throttled uint64
	c.fields("memory", "memory.stat", map[string]*uint64{
		"file": &d.Cache, "file_mapped": &d.MappedFile, "kernel": &d.Kernel,
		"active_file": &d.ActiveFile, "inactive_file": &d.InactiveFile,
	})
	d.Swap = c.number("memory", "memory.swap.current")
	d.PeakUsage = c.number("memory", "memory.peak")
	c.fields("memory", "memory.events", map[string]*uint64{"max": &d.LimitHits})
	c.fields("cpu", "cpu.stat", map[string]*uint64{
		"nr_periods": &d.Periods, "nr_throttled": &d.ThrottledPeriods, "throttled_usec": &throttled,
	})
	d.ThrottledTime = micros(throttled)

	devices := map[string]*DeviceIO{}
	for line := range strings.Lines(c.file("io", "io.stat")) {
		f := strings.Fields(line) // "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 …"
		if len(f) < 2 {
			continue
		}
		dev := device(devices, f[0])
		into := map[string]*uint64{"rbytes": &dev.ReadBytes, "wbytes": &dev.WrittenBytes, "rios": &dev.Reads, "wios": &dev.Writes}
		for _, pair := range f[1:] {
			key, value, _ := strings.Cut(pair, "=")
			if n := into[key]; n != nil {
				*n, _ = strconv.ParseUint(value, 10, 64)
			}
		}
	}
	d.IO = sortedDevices(devices)
	return d
}

// device returns the entry of a device such as "8:0".
func device(all map[string]*DeviceIO, name string) *DeviceIO {
	if d := all[name]; d != nil {
		return d
	}
	d := &DeviceIO{}
	major, minor, _ := strings.Cut(name, ":")
	d.Major, _ = strconv.ParseUint(major, 10, 32)
	d.Minor, _ = strconv.ParseUint(minor, 10, 32)
	all[name] = d
	return d
}

func sortedDevices(all map[string]*DeviceIO) (list []DeviceIO) {
	for d := range maps.Values(all) {
		list = append(list, *d)
	}
	slices.SortFunc(list, func(a, b DeviceIO) int {
		return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor))
	})
	return list
}
