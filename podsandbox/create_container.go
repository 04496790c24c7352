package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/internal/background"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// CreateContainer prepares a container in a ready pod and returns its id. A
// repeated request joins the one under way or gets the container it made.
func (m *Manager) CreateContainer(ctx context.Context, podID string, cfg *runtimeapi.ContainerConfig) (string, error) {
	p, err := m.State.FindPod(podID)
	if err != nil {
		return "", err
	}
	if err := spec.ValidateContainer(cfg, p.Config()); err != nil {
		return "", err
	}
	if err := m.opts.Engines.Validate(p.Meta.Handler, p.Config(), cfg); err != nil {
		return "", err
	}
	name := state.ContainerName(p.ID(), cfg.GetMetadata())
	c, err := background.Join(ctx, m.work, "create container "+name, m.timeouts.operation(), func(ctx context.Context) (*state.Container, error) {
		c := m.State.ContainerNamed(name)
		if c == nil {
			return m.createContainer(ctx, p, cfg) // it may have ended with its pod by the time of the answer
		}
		if c.Phase() != lifecycle.Created {
			return nil, alreadyExists(c.ID(), c.Phase())
		}
		return c, nil
	})
	if err == nil && !proto.Equal(c.Config(), cfg) {
		err = alreadyExists(c.ID(), c.Phase())
	}
	if err != nil {
		return "", fmt.Errorf("create container %s in pod %s: %w", cfg.GetMetadata().GetName(), p.ID(), err)
	}
	return c.ID(), nil
}

// createContainer is the life of a container up to Created. Whatever fails, nothing is
// left.
func (m *Manager) createContainer(ctx context.Context, p *state.Pod, cfg *runtimeapi.ContainerConfig) (_ *state.Container, err error) {
	sandbox, done, err := p.BeginOperation()
	if err != nil {
		return nil, err
	}
	defer done()
	img, err := m.opts.Images.Get(ctx, cfg.GetImage().GetImage())
	if err != nil {
		return nil, fmt.Errorf("find image: %w", err)
	}
	volumes, err := m.files.FindImages(ctx, cfg.GetMounts())
	if err != nil {
		return nil, err
	}
	c, err := recordContainer(m.State, p, cfg, img, volumes)
	if err != nil {
		return nil, err
	}
	defer c.CreationEnded()
	defer func() {
		if err != nil {
			m.rollBackContainer(ctx, c)
		}
	}()
	if err := m.files.MakeDirectory(c); err != nil {
		return nil, err
	}
	if err := m.Resources.Fit(p); err != nil {
		return nil, fmt.Errorf("resize the pod's cgroup: %w", err)
	}
	if err := m.files.MountRoot(c, img); err != nil {
		return nil, err
	}
	resolved, err := m.specs.resolve(ctx, c, img)
	if err != nil {
		return nil, err
	}
	if err := m.specs.adjust(ctx, c, resolved.spec); err != nil {
		return nil, err
	}
	resolved.plan.DropReplaced(resolved.spec)
	if err := errors.Join(c.SaveWrites(resolved.plan.Writes), c.SaveSpec(resolved.spec)); err != nil {
		return nil, err
	}
	if err := m.Streams.Open(c); err != nil {
		return nil, err
	}
	if err := sandbox.Create(ctx, engine.Container{
		ID: c.ID(), Spec: resolved.spec, Writes: resolved.plan.Writes, HostSockets: m.files.ReachesSockets(cfg.GetMounts()),
	}); err != nil {
		return nil, fmt.Errorf("create in the sandbox: %w", err)
	}
	if ph := p.Phase(); ph != lifecycle.Ready {
		return nil, fmt.Errorf("pod %s is not ready any more (%s): %w", p.ID(), ph, errdefs.ErrFailedPrecondition)
	}
	err = c.Transition(lifecycle.Prepared, func(st *record.ContainerStatus) { st.User = resolved.user })
	if err != nil {
		return nil, err
	}
	if p.Phase() != lifecycle.Ready {
		m.endCreated(p) // who ended the pod may have looked before it was Created
	}
	if m.opts.Plugins != nil {
		m.opts.Plugins.ContainerCreated(ctx, nri.PodOf(p), nri.ContainerOf(c, nil))
	}
	return c, nil
}

// recordContainer records what was asked for, and what that means of the image.
func recordContainer(pods *state.Registry, p *state.Pod, cfg *runtimeapi.ContainerConfig, img image.Image, volumes map[int]string) (*state.Container, error) {
	signal, err := spec.StopSignal(img.Config.StopSignal, cfg)
	if err != nil {
		return nil, err
	}
	meta := record.ContainerMeta{
		Config:  record.Message[*runtimeapi.ContainerConfig]{Proto: cfg},
		ImageID: img.ID, ImageRef: imageRef(img), StopSignal: int(signal),
		ImageName: img.NameFor(cfg.GetImage().GetUserSpecifiedImage(), cfg.GetImage().GetImage()), VolumeImages: volumes,
	}
	if dir, name := p.Config().GetLogDirectory(), cfg.GetLogPath(); dir != "" && name != "" {
		meta.LogPath = filepath.Join(dir, name)
	}
	return pods.CreateContainer(p, meta)
}

// imageRef is the reference that CRI wants in a container's status: the digest
// of the repository where there is one, else the id.
func imageRef(img image.Image) string {
	if len(img.RepoDigests) > 0 {
		return img.RepoDigests[0]
	}
	return img.ID
}
