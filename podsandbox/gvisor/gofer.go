package gvisor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// gofer is the process that serves a container's root and bind mounts, from a tree
// of its own (tree.go). It is started at Create, well before the container, because it takes most of the
// time of a start. It ends by itself once the sandbox has closed its ends of
// their connections, or once this daemon has, before the sandbox got them.
type gofer struct {
	proc     *process
	prepared *preparedSpec
	conns    []*os.File // the sandbox's ends, root first; nil once handed over
	exit     *os.File   // over which the gofer gets a pidfd of the Sentry
	panicLog *os.File   // closed after its end

	opener   *opener  // answers its questions while it makes its mounts
	resolved *os.File // the pipe for the list of those
	maxList  int64    // how much of it is read, in bytes

	// ready is closed when the gofer has made its mounts, or failed to.
	ready  chan struct{}
	mounts []specs.Mount // as the sandbox gets them; valid once ready is closed
	err    error         // valid once ready is closed
}

// gofers starts the gofers of one sandbox, with the configuration that its Sentry has. Each
// gofer belongs to its container.
type gofers struct {
	engine   *Engine
	cfg      engine.Config
	settings settings
	sentry   *sentry
}

// spawn starts the gofer of a prepared spec and does not wait for it.
func (s *gofers) spawn(id string, p *preparedSpec) (*gofer, error) {
	g := &gofer{prepared: p, ready: make(chan struct{})}
	cu := cleanup.Make(func() { g.closeConns() })
	defer cu.Clean()

	d := newDonation(s.engine.null)
	defer d.close()
	var err error
	if g.panicLog, err = newPanicLog(); err != nil {
		return nil, err
	}
	cu.Add(func() { g.panicLog.Close() })
	if err := s.engine.configFlags(d, s.settings, s.cfg.Dir, g.panicLog, "gofer-"+id+".log"); err != nil {
		return nil, err
	}
	if p.sockets {
		d.flag("--host-uds=open")
	}
	d.flag("gofer", "--bundle=/", "--gofer-mount-confs="+p.goferConfs())
	asked := p.goferSpec()
	if g.maxList, err = maxListOf(asked.Mounts); err != nil {
		return nil, err
	}
	spec, err := specFile(asked)
	if err != nil {
		return nil, err
	}
	d.give("spec-fd", spec)
	resolved, resolvedW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create mounts pipe: %w", err)
	}
	cu.Add(func() { resolved.Close() })
	d.give("mounts-fd", resolvedW)
	if err := g.connect(d, p); err != nil {
		return nil, err
	}
	if g.opener, err = newOpener(d, p.served); err != nil {
		return nil, err
	}
	cu.Add(g.opener.close)
	if err := g.controlSockets(d, s.sentry); err != nil {
		return nil, err
	}

	b := spawnConfig{
		program: s.engine.program, argv0: goferName + "/" + s.cfg.ID, id: id,
		netns: s.engine.emptyNetNS, cgroups: s.cfg.CgroupPaths, oom: s.cfg.OOMScoreAdj, ids: s.cfg.IDs,
	}
	crashpoint.Here("before gofer spawn")
	if g.proc, err = b.fork(d); err != nil {
		return nil, err
	}
	crashpoint.Here("after gofer spawn")
	cu.Release()
	g.resolved = resolved
	go g.opener.serve(g.proc)
	go func() {
		g.readMounts()
		<-g.proc.done
		if words := readPanicLog(g.panicLog); crashAt(words) >= 0 {
			s.engine.log.Warn("The server of a container's file systems has crashed", "sandbox", s.cfg.ID, "container", id,
				"said", quoted(essence(words, maxPanicQuote), maxPanicQuote))
		}
		g.panicLog.Close()
	}()
	return g, nil
}

// connect makes one connection between gofer and sandbox for each mount that the
// gofer serves; images go to the sandbox as they are.
func (g *gofer) connect(d *donation, p *preparedSpec) error {
	for _, conf := range p.confs {
		if conf.Lower == lowerErofs {
			image := p.images[0]
			p.images = p.images[1:]
			g.conns = append(g.conns, image)
			continue
		}
		ours, theirs, err := socketPair(unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		g.conns = append(g.conns, ours)
		d.give("io-fds", theirs)
	}
	return nil
}

// controlSockets adds the gofer's other sockets.
func (g *gofer) controlSockets(d *donation, s *sentry) error {
	exit, exitTheirs, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return err
	}
	g.exit = exit
	d.give("sync-sentry-exit-fd", exitTheirs)
	s.lendRing(d)
	return nil
}

// maxListOf is how much of a gofer's list of mounts is read, in bytes: it is the one
// that it was given, with some options more.
func maxListOf(mounts []specs.Mount) (int64, error) {
	b, err := json.Marshal(mounts)
	if err != nil {
		return 0, fmt.Errorf("encode mounts: %w", err)
	}
	const perMount = 256
	return int64(len(b) + perMount*(len(mounts)+1)), nil
}

// readMounts waits for the list of mounts that the gofer has made. An empty list
// means that it has died.
func (g *gofer) readMounts() {
	defer close(g.ready)
	defer g.resolved.Close()
	b, err := io.ReadAll(io.LimitReader(g.resolved, g.maxList+1))
	if int64(len(b)) > g.maxList {
		_ = g.proc.signal(unix.SIGKILL)
		err = fmt.Errorf("its list of mounts is longer than what it was asked for: %w", errdefs.ErrInternal)
	}
	if err == nil && len(b) > 0 {
		var made []specs.Mount
		if err = json.Unmarshal(b, &made); err == nil {
			g.mounts, g.err = g.prepared.sentryMounts(made)
			return
		}
	}
	if err == nil {
		err = errdefs.ErrInvalidArgument // what it could not mount was asked for
	}
	<-g.proc.done
	if refused := g.opener.refusal(); refused != nil {
		g.err = fmt.Errorf("prepare file systems: %w", refused)
		return
	}
	words := "it left no message"
	if w := quoted(essence(readPanicLog(g.panicLog), maxPanicQuote), maxPanicQuote); w != "" {
		words = "it said: " + w
	}
	g.err = fmt.Errorf("prepare file systems: the gofer %s; %s: %w", g.proc.describeEnd(), words, err)
}

// await waits until the gofer serves.
func (g *gofer) await(ctx context.Context) error {
	select {
	case <-g.ready:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("prepare file systems: %w", ctx.Err())
	}
}

// follow gives the gofer a pidfd of the Sentry: it outlives the Sentry by a
// moment, and so is the one who pays for freeing what they share.
func (g *gofer) follow(sentry *process) {
	// An error is the end of either; the gofer goes by itself then.
	_ = control(sentry.pidfd, func(pidfd int) error {
		return control(g.exit, func(sock int) error {
			return unix.Sendmsg(sock, []byte{0}, unix.UnixRights(pidfd), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		})
	})
}

// closeConns closes this daemon's ends. Those that serve the making of the mounts
// could outlive the gofer, if it gave its own ones to somebody.
func (g *gofer) closeConns() {
	if g.resolved != nil {
		g.opener.close()
		_ = g.resolved.SetReadDeadline(time.Unix(1, 0))
	}
	for _, f := range g.conns {
		f.Close()
	}
	g.conns = nil
	if g.exit != nil {
		g.exit.Close()
		g.exit = nil
	}
}

// goferExitGrace is how long a gofer may outlive its Sentry, whose shared files it
// frees.
const goferExitGrace = 200 * time.Millisecond

// stopGofer ends the container's gofer. With the Sentry dead it ends by itself
// in a moment; with the Sentry alive it would wait half a second for that, though
// the container is gone and every write of it done. The container's turn is held.
func (c *container) stopGofer(ctx context.Context, sentryDead bool) error {
	g := c.gofer
	if g == nil {
		return nil
	}
	g.closeConns()
	grace := time.Duration(0)
	if sentryDead {
		grace = goferExitGrace
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-g.proc.done:
	case <-t.C:
		_ = g.proc.signal(unix.SIGKILL)
	}
	select {
	case <-g.proc.done:
	case <-ctx.Done():
		_ = g.proc.signal(unix.SIGKILL)
		return fmt.Errorf("the server of its file systems does not end: %w", ctx.Err())
	}
	c.gofer = nil
	return nil
}

func socketPair(kind int) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket of child"), nil
}
