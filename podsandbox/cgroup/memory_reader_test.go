package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestMemoryReader(t *testing.T) {
	for name, h := range realHosts(t) {
		t.Run(name, func(t *testing.T) {
			g := mustMake(t, h, testParent, "meter", Limits{})
			file := "memory.current"
			if h.version == 1 {
				file = "memory.usage_in_bytes"
			}
			r := g.OpenMemory()
			defer r.Close()
			if _, err := os.Stat(filepath.Join(g.dir("memory"), file)); errors.Is(err, fs.ErrNotExist) {
				if n, err := r.Usage(); !errdefs.IsNotFound(err) {
					t.Errorf("without the controller: %d, %v", n, err)
				}
				return
			}
			// 30 MiB in the memory of a process.
			cmd := join(t, g, "sh", "-c", "read go; head -c 31457280 /dev/zero | tail | sleep 60")
			before := openDescriptors(t)
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				use, err1 := r.Usage()
				held, err2 := r.Held()
				if err := errors.Join(err1, err2); err != nil {
					t.Fatal(err)
				}
				if use >= 30<<20 && held >= 30<<20 && held <= use+1<<20 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("30 MiB are %d in use, %d of them held", use, held)
				}
			}
			cmd.Process.Kill()

			mustDelete(t, g)
			for what, read := range map[string]func() (uint64, error){"usage": r.Usage, "held": r.Held} {
				if n, err := read(); !errdefs.IsNotFound(err) {
					t.Errorf("%s of a group that is gone: %d, %v", what, n, err)
				}
			}
			if n := openDescriptors(t); n != before {
				t.Errorf("%d descriptors are open after the group has gone, %d before", n, before)
			}
			mustMake(t, h, testParent, "meter", Limits{MemoryBytes: 64 << 20})
			if _, err := r.Usage(); err != nil {
				t.Errorf("made anew: %v", err)
			}
			// Again, with the descriptor of the one before still open.
			mustDelete(t, g)
			mustMake(t, h, testParent, "meter", Limits{MemoryBytes: 64 << 20})
			if _, err := r.Usage(); err != nil {
				t.Errorf("made anew behind its back: %v", err)
			}
			if limit := r.Ceiling(); limit != 64<<20 {
				t.Errorf("the ceiling is %d", limit)
			}
			r.Close()
			if n := openDescriptors(t); n != before {
				t.Errorf("%d descriptors are open after Close, %d before", n, before)
			}
		})
	}
}

func TestMemoryReaderReadsBothVersions(t *testing.T) {
	for version, files := range map[int]map[string]string{
		1: {
			"memory/cri-sandbox/id/memory.usage_in_bytes": "1000\n", "memory/cri-sandbox/id/memory.limit_in_bytes": "9223372036854771712\n",
			"memory/cri-sandbox/memory.limit_in_bytes": "5000\n",
			"memory/cri-sandbox/id/memory.stat":        "cache 700\nrss 1\nshmem 2\ntotal_cache 700\ntotal_rss 300\ntotal_shmem 400\n",
		},
		2: {
			"cri-sandbox/id/memory.current": "1000\n", "cri-sandbox/id/memory.max": "5000\n", "cri-sandbox/memory.max": "max\n",
			"cri-sandbox/id/memory.stat": "anon 300\nfile 700\nkernel 9\nshmem 400\nanon_thp 50\nshmem_thp 60\n",
		},
	} {
		g, err := fakeHost(t, version, files).load("", "id")
		if err != nil {
			t.Fatal(err)
		}
		r := g.OpenMemory()
		defer r.Close()
		use, err1 := r.Usage()
		held, err2 := r.Held()
		if top := g.Top().Path(); top != "/cri-sandbox" {
			t.Errorf("v%d: the topmost group is %s", version, top)
		}
		if ceiling := r.Ceiling(); use != 1000 || held != 700 || ceiling != 5000 || err1 != nil || err2 != nil {
			t.Errorf("v%d: usage %d (%v), held %d (%v), ceiling %d", version, use, err1, held, err2, ceiling)
		}
	}
	g, err := fakeHost(t, 2, map[string]string{"cri-sandbox/id/cgroup.procs": ""}).load("", "id")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := g.OpenMemory().Usage(); !errdefs.IsNotFound(err) {
		t.Errorf("memory that is not counted is %d bytes, %v", n, err)
	}
}

func BenchmarkMemoryReader(b *testing.B) {
	for name, h := range realHosts(b) {
		g := mustMake(b, h, testParent, "meter", Limits{})
		r := g.OpenMemory()
		defer r.Close()
		if _, err := r.Usage(); err != nil {
			continue
		}
		for what, read := range map[string]func() (uint64, error){"usage": r.Usage, "held": r.Held} {
			b.Run(name+" "+what, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := read(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
