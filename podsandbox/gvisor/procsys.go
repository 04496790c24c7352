package gvisor

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// writableSysctls are the folders of the Sentry's /proc/sys that hold a file
// which can be written, with all their files. The rest of /proc/sys takes no
// writes and stays as it is: it holds values that are computed when they are
// read, such as kernel/random/uuid.
//
// A test against a real sandbox tries to write every file below /proc/sys, and
// so finds a folder that a later gVisor adds.
var writableSysctls = map[string][]string{
	"/proc/sys/fs":          {"mount-max", "nr_open", "pipe-max-size"},
	"/proc/sys/kernel/keys": {"maxkeys"},
	"/proc/sys/kernel/yama": {"ptrace_scope"},
	"/proc/sys/net/ipv4": {
		"ip_forward", "ip_local_port_range", "ip_local_reserved_ports", "ip_no_pmtu_disc", "ip_nonlocal_bind",
		"ipfrag_time", "tcp_allowed_congestion_control", "tcp_available_congestion_control", "tcp_base_mss",
		"tcp_congestion_control", "tcp_dsack", "tcp_early_retrans", "tcp_fack", "tcp_fastopen", "tcp_fastopen_key",
		"tcp_invalid_ratelimit", "tcp_keepalive_intvl", "tcp_keepalive_probes", "tcp_keepalive_time", "tcp_mtu_probing",
		"tcp_no_metrics_save", "tcp_probe_interval", "tcp_probe_threshold", "tcp_recovery", "tcp_retries1",
		"tcp_retries2", "tcp_rfc1337", "tcp_rmem", "tcp_sack", "tcp_slow_start_after_idle", "tcp_synack_retries",
		"tcp_syn_retries", "tcp_timestamps", "tcp_wmem",
	},
}

// procSysImages are read-only images of the folders of writableSysctls, by
// folder, made at the first use. Pods with the Sentry's own values share those of
// the engine; a pod with sysctls or with the host's network has its own.
type procSysImages struct {
	mu     sync.Mutex
	images map[string]*os.File // guarded by mu
}

// get returns the images, made by the given function if there are none. It is
// called without the lock, as it asks a sandbox; of two that make them at the same
// time, one has worked in vain.
func (i *procSysImages) get(read func() (map[string]*os.File, error)) (map[string]*os.File, error) {
	i.mu.Lock()
	images := i.images
	i.mu.Unlock()
	if images != nil {
		return images, nil
	}
	images, err := read()
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.images == nil {
		i.images = images
	} else {
		closeImages(images)
	}
	return i.images, nil
}

func closeImages(images map[string]*os.File) {
	for _, f := range images {
		f.Close()
	}
}

func (i *procSysImages) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	closeImages(i.images)
	i.images = nil
}

// restrictProcSys makes what lies at or below target in /proc/sys read-only: the
// folders that can be written are covered by images of themselves, which the
// Sentry mounts without a gofer.
func (s *Sandbox) restrictProcSys(ctx context.Context, p *preparedSpec, target string) error {
	cache := &s.engine.procSys
	if len(s.cfg.Sysctls) > 0 || s.hostNetwork() {
		cache = &s.procSys
	}
	images, err := cache.get(func() (map[string]*os.File, error) { return s.readProcSys(ctx) })
	if err != nil {
		return err
	}
	for _, dir := range slices.Sorted(maps.Keys(images)) {
		if !within(dir, target) && !within(target, dir) {
			continue
		}
		if slices.ContainsFunc(p.spec.Mounts, func(m specs.Mount) bool { return m.Destination == dir }) {
			continue // a narrower path has covered it already
		}
		f, err := reopen(images[dir])
		if err != nil {
			return err
		}
		p.images = append(p.images, f)
		p.spec.Mounts = append(p.spec.Mounts, specs.Mount{
			Destination: dir, Type: imageMountType, Source: "/proc-sys", Options: []string{"ro", "nosuid", "noexec"},
		})
	}
	return nil
}

// readProcSys makes the images from the values that this sandbox has.
func (s *Sandbox) readProcSys(ctx context.Context) (map[string]*os.File, error) {
	images := map[string]*os.File{}
	cu := cleanup.Make(func() { closeImages(images) })
	defer cu.Clean()
	for dir, names := range writableSysctls {
		tree := guest.Dir{}
		for _, name := range names {
			value, err := s.readFile(ctx, path.Join(dir, name))
			if err != nil && !strings.Contains(err.Error(), "no such file") {
				return nil, fmt.Errorf("read %s: %w", path.Join(dir, name), err)
			} else if err == nil {
				tree[name] = guest.File{Data: value}
			}
		}
		if len(tree) == 0 {
			continue // not there without a network stack of the sandbox's own
		}
		image, err := guest.Image(tree)
		if err != nil {
			return nil, err
		}
		if images[dir], err = memoryFile("proc-sys", image); err != nil {
			return nil, err
		}
	}
	cu.Release()
	return images, nil
}

// readFile reads a file as the root container sees it.
func (s *Sandbox) readFile(ctx context.Context, name string) ([]byte, error) {
	out, err := openMemoryFile("read")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := s.control.call(ctx, methodReadFile, readFileArgs{ContainerID: s.cfg.ID, Path: name}, nil, out); err != nil {
		return nil, s.explain(err)
	}
	return io.ReadAll(io.NewSectionReader(out, 0, 1<<16))
}
