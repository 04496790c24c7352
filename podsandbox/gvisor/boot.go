package gvisor

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

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

// spawn forks the boot process. It returns the pipe on which the process says
// that it is ready. After an error, release closes what it has opened.
func (s *Sandbox) spawn(m engine.Machine, netns *os.File) (*os.File, error) {
	d := newDonation(s.engine.null)
	defer d.close()
	var err error
	if s.fdStore, err = newFDStore(); err != nil {
		return nil, err
	}
	s.fdStore.donate(d)
	if s.panicLog, err = newPanicLog(); err != nil {
		return nil, err
	}
	if err := s.configFlags(d, s.panicLog, bootLogName); err != nil {
		return nil, err
	}
	if s.engine.opts.Profile {
		d.flag("--profile")
	}
	if s.hostNetwork() {
		// Which of its containers have NET_RAW is not known yet, and this cannot be
		// given to a sandbox that runs.
		d.flag("--net-raw")
	}
	d.flag("boot", "--bundle=/", "--setup-root", "--apply-caps=true", "--gofer-mount-confs=erofs:none")
	d.flag(s.engine.sizeFlags(m)...)

	control, err := bindControlSocket(string(s.control))
	if err != nil {
		return nil, err
	}
	d.give("controller-fd", control)
	spec, err := specFile(rootSpec(m.Hostname))
	if err != nil {
		return nil, err
	}
	d.give("spec-fd", spec)
	d.lend("io-fds", s.engine.rootImage)
	d.lend("stdio-fds", s.engine.null, s.engine.null, s.engine.null)
	if s.ring = newPinRing(); s.ring != nil {
		d.lend("pin-ring-fd", s.ring)
	}
	booted, ready, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create start pipe: %w", err)
	}
	d.give("start-sync-fd", ready)

	b := spawnConfig{
		program: s.engine.program, argv0: bootName, id: m.ID,
		netns: netns, cgroups: m.CgroupPaths, oom: m.OOMScoreAdj,
		hostUser: m.HostNetwork, ids: m.IDs,
	}
	if s.proc, err = b.fork(d); err != nil {
		booted.Close()
		return nil, err
	}
	return booted, nil
}

// configFlags adds gVisor's configuration, which boot and gofer share, and the
// log descriptors. The stderr of either goes to its panic log and nowhere else.
func (s *Sandbox) configFlags(d *donation, panicLog *os.File, debugLog string) error {
	d.flag("--root=" + s.cfg.Dir)
	d.flag(s.settings().flags()...)
	d.lend("panic-log-fd", panicLog)
	if s.engine.opts.Debug {
		f, err := openLog(filepath.Join(s.cfg.Dir, debugLog))
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

// awaitBooted waits for the one byte that says that the sandbox answers calls.
func (s *Sandbox) awaitBooted(ctx context.Context, booted *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = booted.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := booted.Read(make([]byte, 1))
	switch {
	case n == 1:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case !os.IsTimeout(err):
		// The pipe has ended, so the process is about to.
		select {
		case <-s.proc.done:
		case <-ctx.Done():
		}
	}
	return s.deathError("the sandbox process")
}

// deathError says how the sandbox process has ended and what it said last.
func (s *Sandbox) deathError(who string) error {
	how := "does not answer"
	if s.proc.ended() {
		how = s.proc.describeEnd()
	}
	return fmt.Errorf("%s %s; %s: %w", who, how, s.quotePanicLog(), errdefs.ErrUnavailable)
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
