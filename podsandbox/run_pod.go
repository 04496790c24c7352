package podsandbox

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// RunPodSandbox creates and starts a pod and returns its id. A repeated request
// joins the one under way or gets the pod it made; the identity of a pod that
// was asked for differently, or that has ended, is errdefs.ErrAlreadyExists. One that
// failed is being undone, and has no identity any more.
func (m *Manager) RunPodSandbox(ctx context.Context, cfg *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := m.admit(cfg, handler); err != nil {
		return "", err
	}
	name := state.PodName(cfg.GetMetadata())
	p, err := background.Join(ctx, m.work, "run pod "+name, m.timeouts.operation(), func(ctx context.Context) (*state.Pod, error) {
		p := m.State.PodNamed(name)
		if p == nil {
			// What it makes may have ended by the time of the answer; it was run all the same.
			return m.runPod(ctx, cfg, handler)
		}
		if p.Phase() != lifecycle.Ready {
			return nil, alreadyExists(p.ID(), p.Phase())
		}
		return p, nil
	})
	if err == nil && (p.Meta.Handler != handler || !proto.Equal(p.Config(), cfg)) {
		err = alreadyExists(p.ID(), p.Phase())
	}
	if err != nil {
		return "", fmt.Errorf("run pod %s: %w", name, err)
	}
	return p.ID(), nil
}

// alreadyExists says that a name is taken by what was asked for differently, or
// has ended.
func alreadyExists(id string, phase lifecycle.Phase) error {
	return fmt.Errorf("it exists as %s (%s), remove it or count up the attempt: %w", id, phase, errdefs.ErrAlreadyExists)
}

// admit decides, by the request and this node's settings alone, whether a pod may
// be run.
func (m *Manager) admit(cfg *runtimeapi.PodSandboxConfig, handler string) error {
	if _, err := m.opts.Engines.Engine(handler); err != nil {
		return err
	}
	if err := spec.ValidatePod(cfg); err != nil {
		return err
	}
	return m.opts.Engines.Validate(handler, cfg, nil)
}

// runPod is the life of a pod up to Ready. Whatever fails, nothing is left.
func (m *Manager) runPod(ctx context.Context, cfg *runtimeapi.PodSandboxConfig, handler string) (_ *state.Pod, err error) {
	p, err := m.State.CreatePod(cfg, handler, m.bootID)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.rollBack(p)
		}
	}()
	hostname, err := podHostname(p)
	if err != nil {
		return nil, err
	}
	if err := m.files.MakePodFiles(p, hostname); err != nil {
		return nil, err
	}
	if err := m.host.makeGroup(p); err != nil {
		return nil, err
	}
	if err := m.host.makeNamespace(p); err != nil {
		return nil, err
	}
	if err := m.host.bootAndConnect(ctx, p); err != nil {
		return nil, err
	}
	if err := m.files.MakeHosts(p, hostname); err != nil {
		return nil, err
	}
	sandbox := p.Sandbox()
	if err := sandbox.StartRoot(ctx); err != nil {
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	if err := m.opts.Plugins.RunPod(ctx, nri.PodOf(p)); err != nil {
		return nil, err
	}
	if err := p.Transition(lifecycle.Booted, nil); err != nil {
		return nil, err
	}
	m.watchSandbox(p, sandbox)
	return p, nil
}

// watchSandbox takes note when the sandbox process ends.
func (m *Manager) watchSandbox(p *state.Pod, sb engine.Sandbox) {
	m.work.Go("watch the sandbox of pod "+p.ID(), func(life context.Context) {
		select {
		case <-life.Done():
		case <-sb.Done():
			m.sandboxDied(p)
		}
	})
}

// podHostname is the name that a pod has for itself.
func podHostname(p *state.Pod) (string, error) {
	node, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read the node's host name: %w", err)
	}
	return spec.Hostname(p.Config(), p.ID(), node), nil
}
