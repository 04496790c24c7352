package podsandbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cdi"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/nri"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/resources"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/rootfs"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/spec"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// specMaker makes the OCI specs of containers from requests, images, devices and the
// wishes of plugins.
type specMaker struct {
	pods        *state.Registry
	engines     engine.Handlers
	files       *rootfs.Builder
	paths       layout.Paths
	devices     cdi.Devices
	plugins     *nri.Plugins
	resources   *resources.Controller
	seccompRoot string
}

// resolved is what a request means on this image and node.
type resolved struct {
	spec *specs.Spec
	plan *rootfs.Plan
	user *record.Message[*runtimeapi.ContainerUser]
}

// resolve turns the request into an OCI spec. The root file system is mounted.
func (b *specMaker) resolve(ctx context.Context, c *state.Container, img image.Image) (*resolved, error) {
	root := b.paths.Rootfs(c.Pod.ID(), c.ID())
	mounts, err := spec.PrepareMounts(c.Config().GetMounts())
	if err != nil {
		return nil, err
	}
	if err := b.files.MountImages(ctx, c, mounts); err != nil {
		return nil, err
	}
	plan, err := b.files.Plan(c, img, mounts)
	if err != nil {
		return nil, err
	}
	user, err := spec.ResolveUser(root, img.Config.User, c.Config().GetLinux().GetSecurityContext())
	if err != nil {
		return nil, fmt.Errorf("resolve user: %w", err)
	}
	if err := checkMapped(c.Pod.IDs(), user); err != nil {
		return nil, err
	}
	hostname, err := podHostname(c.Pod)
	if err != nil {
		return nil, err
	}
	devices, err := spec.Devices(c.Config().GetDevices())
	if err != nil {
		return nil, err
	}
	target, err := b.targetPIDNamespace(c)
	if err != nil {
		return nil, err
	}
	s, err := spec.Container(spec.Input{
		ID: c.ID(), SandboxID: c.Pod.ID(), Pod: c.Pod.Config(), Container: c.Config(), Image: img.Config,
		User: user, RootPath: root, Mounts: mounts, Volumes: plan.Volumes, Files: plan.Files, Hostname: hostname,
		TargetPIDNamespace: target, SeccompRoot: b.seccompRoot, Devices: devices,
	})
	if err != nil {
		return nil, err
	}
	if err := b.engines.ValidateSpec(c.Pod.Meta.Handler, nil, s); err != nil {
		return nil, err
	}
	if err := b.injectDevices(c, s); err != nil {
		return nil, err
	}
	user.Groups = s.Process.User.AdditionalGids
	return &resolved{spec: s, plan: plan, user: &record.Message[*runtimeapi.ContainerUser]{Proto: spec.LinuxContainerUser(user)}}, nil
}

// checkMapped refuses a user that the pod's user namespace does not have: it could
// make no file.
func checkMapped(ids idmap.Mapping, user spec.ResolvedUser) error {
	for _, gid := range append([]uint32{user.GID}, user.Groups...) {
		if _, _, ok := ids.ToHost(user.UID, gid); !ok {
			return fmt.Errorf("user %d or group %d is not in the pod's user namespace: %w", user.UID, gid, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// engineContainer is what the sandbox needs to know of a container, without its files.
// After an error it is as much of it as can be read.
func (b *specMaker) engineContainer(c *state.Container) (engine.Container, error) {
	ec := engine.Container{ID: c.ID(), HostSockets: b.files.ReachesSockets(c.Config().GetMounts())}
	var err, werr error
	ec.Spec, err = c.Spec()
	ec.Writes, werr = c.Writes()
	return ec, errors.Join(err, werr)
}
