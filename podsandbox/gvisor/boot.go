package gvisor

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Boot implements engine.Engine.
func (e *Engine) Boot(ctx context.Context, cfg engine.Config) (engine.Sandbox, error) {
	p, err := e.Prepare(ctx, cfg.Machine())
	if err != nil {
		return nil, err
	}
	return p.Bind(ctx, cfg)
}

// spawnSentry forks the boot process of a machine. It returns the pipe on which the
// process says that it is ready, too.
func (e *Engine) spawnSentry(m engine.Machine, netns *os.File) (*sentry, *os.File, error) {
	s := &sentry{dir: m.Dir, root: m.ID}
	cu := cleanup.Make(s.close)
	defer cu.Clean()
	d := newDonation(e.null)
	defer d.close()
	var err error
	if s.fdStore, err = newFDStore(); err != nil {
		return nil, nil, err
	}
	s.fdStore.donate(d)
	if s.panicLog, err = newPanicLog(); err != nil {
		return nil, nil, err
	}
	st := settingsOf(m.HostNetwork)
	if err := e.configFlags(d, st, m.Dir, s.panicLog, bootLogName); err != nil {
		return nil, nil, err
	}
	if e.opts.Profile {
		d.flag("--profile")
	}
	if st.hostNetwork {
		// Which of its containers have NET_RAW is not known yet, and this cannot be
		// given to a sandbox that runs.
		d.flag("--net-raw")
	}
	d.flag("boot", "--bundle=/", "--setup-root", "--apply-caps=true", "--gofer-mount-confs=erofs:none")
	d.flag(e.sizeFlags(m)...)

	control, err := bindControlSocket(filepath.Join(m.Dir, controlSocketName))
	if err != nil {
		return nil, nil, err
	}
	d.give("controller-fd", control)
	spec, err := specFile(rootSpec(m.Hostname))
	if err != nil {
		return nil, nil, err
	}
	d.give("spec-fd", spec)
	d.lend("io-fds", e.rootImage)
	d.lend("stdio-fds", e.null, e.null, e.null)
	s.makeRing()
	s.lendRing(d)
	booted, ready, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("create start pipe: %w", err)
	}
	d.give("start-sync-fd", ready)

	b := spawnConfig{
		program: e.program, argv0: bootName, id: m.ID,
		netns: netns, cgroups: m.CgroupPaths, oom: m.OOMScoreAdj,
		hostUser: m.HostNetwork, ids: m.IDs,
	}
	if s.proc, err = b.fork(d); err != nil {
		booted.Close()
		return nil, nil, err
	}
	cu.Release()
	return s, booted, nil
}

// configFlags adds gVisor's configuration, which boot and gofer share, and the
// log descriptors. The stderr of either goes to its panic log and nowhere else.
func (e *Engine) configFlags(d *donation, st settings, dir string, panicLog *os.File, debugLog string) error {
	d.flag("--root=" + dir)
	d.flag(st.flags()...)
	d.lend("panic-log-fd", panicLog)
	if e.opts.Debug {
		f, err := openLog(filepath.Join(dir, debugLog))
		if err != nil {
			return err
		}
		d.flag("--debug")
		d.give("debug-log-fd", f)
	}
	return nil
}

// sizeFlags tells the Sentry how large its machine is. Without limits it is as
// large as the host.
func (e *Engine) sizeFlags(m engine.Machine) []string {
	host := e.hostMemory
	memory := host
	if l := uint64(m.MemoryLimit); m.MemoryLimit > 0 && l < host {
		memory = l
	}
	flags := []string{
		"--total-host-memory=" + strconv.FormatUint(host, 10),
		"--total-memory=" + strconv.FormatUint(memory, 10),
	}
	if quota, period := m.CPUQuota, m.CPUPeriod; quota > 0 && period > 0 {
		// Two at least: the Sentry's own helpers would starve its task on one.
		cpus := max(2, int(math.Ceil(float64(quota)/float64(period))))
		flags = append(flags, "--cpu-num="+strconv.Itoa(min(cpus, runtime.NumCPU())),
			"--cpu-quota="+strconv.FormatInt(quota, 10), "--cpu-period="+strconv.FormatInt(period, 10))
	}
	return flags
}

// bindControlSocket creates the socket that the Sentry will listen on. An older
// one, of a boot that failed, is replaced.
func bindControlSocket(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create control socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		f.Close()
		return nil, fmt.Errorf("remove old control socket: %w", err)
	}
	name, release, err := shortSocketPath(path)
	if err != nil {
		f.Close()
		return nil, err
	}
	defer release()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		f.Close()
		return nil, fmt.Errorf("bind control socket %s: %w", path, err)
	}
	return f, nil
}
