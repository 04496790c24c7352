package podsandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/logs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/record"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
)

// CreateContainer prepares a container in a ready pod and returns its id. A
// repeated request joins the one under way or gets the container it made.
func (m *Manager) CreateContainer(ctx context.Context, podID string, cfg *runtimeapi.ContainerConfig) (string, error) {
	p, err := m.findPod(podID)
	if err != nil {
		return "", err
	}
	if err := spec.ValidateContainer(cfg, p.config()); err != nil {
		return "", err
	}
	key := containerKey(p.id(), cfg.GetMetadata())
	c, err := join(ctx, m, "create/"+key, m.opts.Timeouts.operation(), func(ctx context.Context) (*container, error) {
		c := m.containerNamed(key)
		if c == nil {
			return m.create(ctx, p, cfg) // it may have ended with its pod by the time of the answer
		}
		if c.phase() != lifecycle.Created {
			return nil, alreadyExists(c.id(), c.phase())
		}
		return c, nil
	})
	if err == nil && !proto.Equal(c.config(), cfg) {
		err = alreadyExists(c.id(), c.phase())
	}
	if err != nil {
		return "", fmt.Errorf("create container %s in pod %s: %w", cfg.GetMetadata().GetName(), p.id(), err)
	}
	return c.id(), nil
}

// create is the life of a container up to Created. Whatever fails, nothing is left.
func (m *Manager) create(ctx context.Context, p *pod, cfg *runtimeapi.ContainerConfig) (_ *container, err error) {
	sandbox, leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	img, err := m.opts.Images.Get(ctx, cfg.GetImage().GetImage())
	if err != nil {
		return nil, fmt.Errorf("find image: %w", err)
	}
	volumes, err := m.findVolumeImages(ctx, cfg.GetMounts())
	if err != nil {
		return nil, err
	}
	c, err := m.recordContainer(p, cfg, img, volumes)
	if err != nil {
		return nil, err
	}
	defer close(c.made)
	defer func() {
		if err != nil {
			m.discard(ctx, c)
		}
	}()
	if err := m.fitGroup(p); err != nil {
		return nil, fmt.Errorf("resize the pod's cgroup: %w", err)
	}
	if err := m.mountRoot(c, img); err != nil {
		return nil, err
	}
	resolved, err := m.resolve(ctx, c, img)
	if err != nil {
		return nil, err
	}
	if err := m.adjustContainer(ctx, c, resolved.spec); err != nil {
		return nil, err
	}
	resolved.plan.dropReplaced(resolved.spec)
	if err := errors.Join(c.SaveWrites(resolved.plan.Writes), c.SaveSpec(resolved.spec)); err != nil {
		return nil, err
	}
	if err := m.openStreams(c); err != nil {
		return nil, err
	}
	if err := sandbox.Create(ctx, engine.Container{
		ID: c.id(), Spec: resolved.spec, Writes: resolved.plan.Writes, HostSockets: m.reachesSockets(cfg.GetMounts()),
	}); err != nil {
		return nil, fmt.Errorf("create in the sandbox: %w", err)
	}
	if ph := p.phase(); ph != lifecycle.Ready {
		return nil, fmt.Errorf("pod %s is not ready any more (%s): %w", p.id(), ph, errdefs.ErrFailedPrecondition)
	}
	err = m.tell(p, c.id(), runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, func() error {
		return c.apply(lifecycle.Prepared, func(st *record.ContainerStatus) { st.User = resolved.user })
	})
	if err != nil {
		return nil, err
	}
	if p.phase() != lifecycle.Ready {
		m.endCreated(p) // who ended the pod may have looked before it was Created
	}
	m.tellAfter(ctx, m.opts.Plugins.ContainerCreated, c)
	return c, nil
}

func (m *Manager) recordContainer(p *pod, cfg *runtimeapi.ContainerConfig, img image.Image, volumes map[int]string) (*container, error) {
	signal, err := spec.StopSignal(img.Config.StopSignal, cfg)
	if err != nil {
		return nil, err
	}
	id := newID()
	meta := record.ContainerMeta{
		ID: id, PodID: p.id(), CreatedAt: time.Now().UnixNano(),
		Config:  record.Message[*runtimeapi.ContainerConfig]{Proto: cfg},
		ImageID: img.ID, ImageRef: imageRef(img), StopSignal: int(signal),
		ImageName: img.NameFor(cfg.GetImage().GetUserSpecifiedImage(), cfg.GetImage().GetImage()), VolumeImages: volumes,
	}
	if dir, name := p.config().GetLogDirectory(), cfg.GetLogPath(); dir != "" && name != "" {
		meta.LogPath = filepath.Join(dir, name)
	}
	r, err := p.CreateContainer(meta, record.ContainerStatus{Phase: lifecycle.Creating})
	if err != nil {
		return nil, err
	}
	c := newContainer(p, r)
	c.made = make(chan struct{})
	m.addContainer(c)
	if err := os.Mkdir(m.paths.container(p.id(), id), 0o700); err != nil {
		m.dropContainer(c)
		c.Delete()
		return nil, fmt.Errorf("make container folder: %w", err)
	}
	crashpoint.Here("after container folder")
	return c, nil
}

// imageRef is the reference that CRI wants in a container's status: the digest
// of the repository where there is one, else the id.
func imageRef(img image.Image) string {
	if len(img.RepoDigests) > 0 {
		return img.RepoDigests[0]
	}
	return img.ID
}

// resolved is what a request means on this image and node.
type resolved struct {
	spec *specs.Spec
	plan *plan
	user *record.Message[*runtimeapi.ContainerUser]
}

// resolve turns the request into an OCI spec. The root file system is mounted.
func (m *Manager) resolve(ctx context.Context, c *container, img image.Image) (*resolved, error) {
	pod, id := c.pod.id(), c.id()
	rootfs := m.paths.rootfs(pod, id)
	mounts, err := spec.PrepareMounts(c.config().GetMounts())
	if err != nil {
		return nil, err
	}
	if err := m.mountImages(ctx, c, mounts); err != nil {
		return nil, err
	}
	plan, err := m.planWrites(c, img, mounts)
	if err != nil {
		return nil, err
	}
	user, err := spec.ResolveUser(rootfs, img.Config.User, c.config().GetLinux().GetSecurityContext())
	if err != nil {
		return nil, fmt.Errorf("resolve user: %w", err)
	}
	if err := checkMapped(c.pod.ids(), user); err != nil {
		return nil, err
	}
	hostname, err := podHostname(c.pod)
	if err != nil {
		return nil, err
	}
	devices, err := spec.Devices(c.config().GetDevices())
	if err != nil {
		return nil, err
	}
	target, err := m.targetPIDNamespace(c)
	if err != nil {
		return nil, err
	}
	s, err := spec.Container(spec.Input{
		ID: id, SandboxID: pod, Pod: c.pod.config(), Container: c.config(), Image: img.Config,
		User: user, RootPath: rootfs, Mounts: mounts, Volumes: plan.volumes, Files: plan.files, Hostname: hostname,
		TargetPIDNamespace: target, SeccompRoot: m.opts.SeccompRoot, Devices: devices,
	})
	if err != nil {
		return nil, err
	}
	if err := m.injectDevices(c, s); err != nil {
		return nil, err
	}
	user.Groups = s.Process.User.AdditionalGids
	return &resolved{spec: s, plan: plan, user: &record.Message[*runtimeapi.ContainerUser]{Proto: spec.LinuxContainerUser(user)}}, nil
}

// openStreams makes the container's FIFOs and starts its log.
func (m *Manager) openStreams(c *container) error {
	dir := m.paths.streams(c.pod.id(), c.id())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make streams folder: %w", err)
	}
	crashpoint.Here("before streams")
	s, err := logs.Create(m.streamsConfig(c))
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	crashpoint.Here("after streams")
	c.setStreams(s)
	return nil
}

func (m *Manager) streamsConfig(c *container) logs.Config {
	return logs.Config{
		Dir: m.paths.streams(c.pod.id(), c.id()), LogPath: c.Meta.LogPath, LogFolder: c.pod.config().GetLogDirectory(),
		Stdin: c.config().GetStdin() && !c.config().GetTty(), Terminal: c.config().GetTty(),
	}
}
