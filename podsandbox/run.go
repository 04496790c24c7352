package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// RunPodSandbox creates and starts a pod and returns its id. A repeated request
// joins the one under way or gets the pod it made; the identity of a pod that
// was asked for differently, or that has ended, is errdefs.ErrAlreadyExists.
func (m *Manager) RunPodSandbox(ctx context.Context, cfg *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := m.admit(cfg, handler); err != nil {
		return "", err
	}
	key := podKey(cfg.GetMetadata())
	p, err := join(ctx, m, "run/"+key, m.opts.Timeouts.operation(), func(ctx context.Context) (*pod, error) {
		p := m.podNamed(key)
		if p == nil {
			// What it makes may have ended by the time of the answer; it was run all the same.
			return m.run(ctx, cfg, handler)
		}
		if p.phase() != lifecycle.Ready {
			return nil, alreadyExists(p.id(), p.phase())
		}
		return p, nil
	})
	if err == nil && (p.Meta.Handler != handler || !proto.Equal(p.config(), cfg)) {
		err = alreadyExists(p.id(), p.phase())
	}
	if err != nil {
		return "", fmt.Errorf("run pod %s: %w", key, err)
	}
	return p.id(), nil
}

// alreadyExists says that a name is taken by what was asked for differently, or
// has ended.
func alreadyExists(id string, phase lifecycle.Phase) error {
	return fmt.Errorf("it exists as %s (%s), remove it or count up the attempt: %w", id, phase, errdefs.ErrAlreadyExists)
}

// admit decides, by the request and this node's settings alone, whether a pod may
// be run.
func (m *Manager) admit(cfg *runtimeapi.PodSandboxConfig, handler string) error {
	if !slices.Contains(m.opts.Handlers, handler) {
		return fmt.Errorf("runtime handler %q is not configured; configured are %q: %w", handler, m.opts.Handlers, errdefs.ErrInvalidArgument)
	}
	if err := spec.ValidatePod(cfg); err != nil {
		return err
	}
	if m.opts.PrivilegedInSandbox {
		return nil
	}
	return spec.RefusePrivileged(cfg)
}

// run is the life of a pod up to Ready. Whatever fails, nothing is left.
func (m *Manager) run(ctx context.Context, cfg *runtimeapi.PodSandboxConfig, handler string) (_ *pod, err error) {
	p, err := m.recordPod(cfg, handler)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.abandon(ctx, p)
		}
	}()
	if err := m.makePodFiles(p); err != nil {
		return nil, err
	}
	if err := m.makeGroup(p); err != nil {
		return nil, err
	}
	if err := m.makeNamespace(p); err != nil {
		return nil, err
	}
	if err := m.bootAndConnect(ctx, p); err != nil {
		return nil, err
	}
	if err := m.makeHosts(p); err != nil {
		return nil, err
	}
	if err := p.getSandbox().StartRoot(ctx); err != nil {
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	if err := m.opts.Plugins.RunPod(ctx, m.pluginPod(p)); err != nil {
		return nil, err
	}
	if err := m.tell(p, p.id(), runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, func() error {
		if err := p.apply(lifecycle.Booted, nil); err != nil {
			return err
		}
		m.publish(p, p.id(), runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
		return nil
	}); err != nil {
		return nil, err
	}
	m.watchSandbox(p, p.getSandbox())
	return p, nil
}

func (m *Manager) recordPod(cfg *runtimeapi.PodSandboxConfig, handler string) (*pod, error) {
	r, err := m.records.CreatePod(record.PodMeta{
		ID: newID(), Handler: handler, CreatedAt: time.Now().UnixNano(),
		Config: record.Message[*runtimeapi.PodSandboxConfig]{Proto: cfg},
	}, record.PodStatus{Phase: lifecycle.Creating, BootID: m.bootID})
	if err != nil {
		return nil, err
	}
	p := newPod(r)
	m.addPod(p)
	return p, nil
}

func podHostname(p *pod) (string, error) {
	node, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read the node's host name: %w", err)
	}
	return spec.Hostname(p.config(), p.id(), node), nil
}

func (m *Manager) makeGroup(p *pod) error {
	linux := p.config().GetLinux()
	if err := os.WriteFile(m.paths.cgroup(p.id()), []byte(linux.GetCgroupParent()), 0o600); err != nil {
		return fmt.Errorf("note the cgroup's parent: %w", err)
	}
	crashpoint.Here("after cgroup note")
	g, err := cgroup.Create(linux.GetCgroupParent(), p.id(), cgroup.Limits{})
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	g.SetOwner(CgroupOwner(m.opts.Root))
	p.setGroup(g)
	if err := m.fitGroup(p); err != nil { // by what is above it, too
		return fmt.Errorf("make cgroup: %w", err)
	}
	return nil
}

func (m *Manager) makeNamespace(p *pod) error {
	if p.hostNetwork() {
		return nil
	}
	if err := network.CreateNamespace(m.paths.netns(p.id())); err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	return nil
}

// bootAndConnect runs CNI ADD and the boot side by side: the sandbox looks at
// its interfaces only in StartRoot.
func (m *Manager) bootAndConnect(ctx context.Context, p *pod) error {
	cfg, err := m.engineConfig(p)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.connect(ctx, p) })
	g.Go(func() error {
		ctx, cancel := context.WithTimeout(ctx, m.opts.Timeouts.Sandbox)
		defer cancel()
		sb, err := m.opts.Engine.Boot(ctx, cfg)
		if err != nil {
			return fmt.Errorf("boot sandbox: %w", err)
		}
		p.setSandbox(sb)
		if err := p.getGroup().Adopt(ctx, sb.Process().PID, p.limits()); err != nil {
			return fmt.Errorf("hand cgroup to systemd: %w", err)
		}
		_, err = p.Update(func(st *record.PodStatus) error {
			st.Process = sb.Process()
			return nil
		})
		return err
	})
	return g.Wait()
}

// connect attaches the pod to its network and saves what the network said.
func (m *Manager) connect(ctx context.Context, p *pod) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.Timeouts.Network)
	defer cancel()
	np := m.networkPod(p)
	var err error
	np.IngressBandwidth, np.EgressBandwidth, err = network.ParseBandwidth(np.Annotations)
	if err != nil {
		return err
	}
	res, err := m.networkOf(p).Attach(ctx, np)
	if err != nil {
		return fmt.Errorf("attach network: %w", err)
	}
	_, err = p.Update(func(st *record.PodStatus) error {
		st.IPs, st.Network = res.IPs, res.Raw
		return nil
	})
	return err
}

// watchSandbox takes note when the sandbox process ends.
func (m *Manager) watchSandbox(p *pod, sb engine.Sandbox) {
	m.goTask(func() {
		select {
		case <-m.life.Done():
		case <-sb.Done():
			m.sandboxDied(p)
		}
	})
}

// sandboxDied is the one path for the end of a sandbox process, asked for or
// not. The containers that run learn of it through their own waits.
func (m *Manager) sandboxDied(p *pod) {
	message := "the sandbox process ended unexpectedly"
	if podOOMKills(p) > 0 {
		message = "the kernel killed the sandbox process: the pod was out of memory"
	}
	err := m.tellEnd(p, func() error {
		return p.Note(func(st *record.PodStatus) (err error) {
			if st.Phase != lifecycle.Ready {
				return errAskedFor
			}
			st.Message = message
			st.Phase, err = lifecycle.Pod.Next(st.Phase, lifecycle.Died)
			return err
		})
	})
	if errors.Is(err, errAskedFor) {
		return
	}
	klog.InfoS("Sandbox process ended unexpectedly", "pod", p.id(), "why", message)
	if err != nil {
		klog.ErrorS(err, "Record the end of a sandbox; it will be tried again", "pod", p.id())
		m.persist(func(context.Context) error { return p.Save() })
	}
	m.endCreated(p)
}

// errAskedFor: a stop or an undo ended the sandbox, and tells itself.
var errAskedFor = errors.New("the pod is not ready")

// endCreated ends the containers of a dead pod that were never started: nobody
// waits for them, and nobody can start them any more.
func (m *Manager) endCreated(p *pod) {
	for _, c := range p.members() {
		if c.phase() == lifecycle.Created {
			m.containerEnded(c, endedWithPod(c))
		}
	}
}

// podOOMKills is how often the kernel killed something in the pod's cgroup.
func podOOMKills(p *pod) uint64 {
	g := p.getGroup()
	if g == nil {
		return 0
	}
	n, err := g.OOMKills()
	if err != nil {
		klog.ErrorS(err, "Read the pod's OOM kills", "pod", p.id())
	}
	return n
}
