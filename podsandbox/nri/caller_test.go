package nri

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// caller is a plugin that only asks.
type caller struct{ synchronized chan struct{} }

func (c caller) Synchronize(context.Context, []*api.PodSandbox, []*api.Container) ([]*api.ContainerUpdate, error) {
	close(c.synchronized)
	return nil, nil
}

func (c caller) StopPodSandbox(context.Context, *api.PodSandbox) error { return nil }

// asNotFound says in words what a status would say.
func asNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("code = NotFound: %w", err)
	}
	return err
}

// What a plugin is told of an error is what Options.Status makes of it.
func TestPluginsAreToldTheCodeOfAnError(t *testing.T) {
	dir := t.TempDir()
	p, err := New(Options{
		Version: "0.0.0", Socket: filepath.Join(dir, "s"), PluginDir: dir, ConfigDir: dir, Status: asNotFound,
		RegistrationTimeout: 10 * time.Second, RequestTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Start(Callbacks{
		List: func() ([]Pod, []Container) { return nil, nil },
		Update: func(_ context.Context, id string, _ *runtimeapi.LinuxContainerResources) error {
			return fmt.Errorf("container %s does not exist: %w", id, errdefs.ErrNotFound)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	c := caller{make(chan struct{})}
	s, err := stub.New(c, stub.WithSocketPath(p.opts.Socket), stub.WithPluginName("caller"), stub.WithPluginIdx("10"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	<-c.synchronized
	update := &api.ContainerUpdate{ContainerId: "nosuch"}
	update.SetLinuxMemoryLimit(1 << 20)
	if _, err := s.UpdateContainers([]*api.ContainerUpdate{update}); err == nil || !strings.Contains(err.Error(), "code = NotFound: ") {
		t.Errorf("the plugin is told %v", err)
	}
}
