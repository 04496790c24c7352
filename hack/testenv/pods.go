package testenv

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// NewUID returns a random pod uid.
func NewUID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// PodConfig returns the config of a pod in the namespace default, with a new uid,
// its own log directory, and cgroups that are this environment's.
func (e *Env) PodConfig(name string) *runtimeapi.PodSandboxConfig {
	uid := NewUID()
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: uid},
		Hostname:     name,
		LogDirectory: filepath.Join(e.LogDir, name+"_"+uid),
		Labels:       map[string]string{"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": uid},
		Linux:        &runtimeapi.LinuxPodSandboxConfig{CgroupParent: e.CgroupParent},
	}
}

// ContainerConfig returns the config of a container that logs to NAME.log.
func ContainerConfig(name, image string, command ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: image},
		Command:  command,
		LogPath:  name + ".log",
		Labels:   map[string]string{"io.kubernetes.container.name": name},
		Linux:    &runtimeapi.LinuxContainerConfig{},
	}
}

// RunPod runs a pod with the default handler and returns its id.
func (c *Client) RunPod(ctx context.Context, pod *runtimeapi.PodSandboxConfig) (string, error) {
	r, err := c.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return "", fmt.Errorf("run pod %s: %w", pod.GetMetadata().GetName(), err)
	}
	return r.PodSandboxId, nil
}

// RunContainer creates and starts a container and returns its id.
func (c *Client) RunContainer(ctx context.Context, podID string, pod *runtimeapi.PodSandboxConfig, ctr *runtimeapi.ContainerConfig) (string, error) {
	r, err := c.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: podID, Config: ctr, SandboxConfig: pod})
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", ctr.GetMetadata().GetName(), err)
	}
	if _, err := c.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		return r.ContainerId, fmt.Errorf("start container %s: %w", ctr.GetMetadata().GetName(), err)
	}
	return r.ContainerId, nil
}

// RemovePod stops and removes a pod with its containers.
func (c *Client) RemovePod(ctx context.Context, id string) error {
	if _, err := c.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("stop pod %s: %w", id, err)
	}
	if _, err := c.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		return fmt.Errorf("remove pod %s: %w", id, err)
	}
	return nil
}

// Exec runs a command in a container and returns its stdout; another exit code
// than 0 is an error that quotes stderr.
func (c *Client) Exec(ctx context.Context, id string, command ...string) (string, error) {
	r, err := c.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: 60})
	if err != nil {
		return "", fmt.Errorf("exec %q: %w", command, err)
	}
	if r.ExitCode != 0 {
		return string(r.Stdout), fmt.Errorf("exec %q: exit code %d: %s", command, r.ExitCode, bytes.TrimSpace(r.Stderr))
	}
	return string(r.Stdout), nil
}

// PodIP returns the first address of a pod.
func (c *Client) PodIP(ctx context.Context, id string) (string, error) {
	r, err := c.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		return "", fmt.Errorf("get status of pod %s: %w", id, err)
	}
	ip := r.GetStatus().GetNetwork().GetIp()
	if ip == "" {
		return "", fmt.Errorf("get status of pod %s: it has no address", id)
	}
	return ip, nil
}

// WaitContainer polls until the container is in the wanted state, or ctx ends.
func (c *Client) WaitContainer(ctx context.Context, id string, want runtimeapi.ContainerState) (*runtimeapi.ContainerStatus, error) {
	for {
		r, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return nil, fmt.Errorf("get status of container %s: %w", id, err)
		}
		if r.GetStatus().GetState() == want {
			return r.Status, nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return r.Status, fmt.Errorf("wait for container %s: it is %s, not %s: %w", id, r.GetStatus().GetState(), want, err)
		}
	}
}

// WaitLog polls the log file of a container until its text contains want, and
// returns the text: the content of all records, stdout and stderr together.
func WaitLog(ctx context.Context, path, want string) (string, error) {
	for {
		text, err := ReadLog(path)
		if err == nil && bytes.Contains([]byte(text), []byte(want)) {
			return text, nil
		}
		if perr := pause(ctx, 2*time.Millisecond); perr != nil {
			return text, fmt.Errorf("wait for %q in log %s: %w (read: %v, %d bytes)", want, path, perr, err, len(text))
		}
	}
}

// LogPath is where a container of a pod logs to.
func LogPath(pod *runtimeapi.PodSandboxConfig, ctr *runtimeapi.ContainerConfig) string {
	return filepath.Join(pod.LogDirectory, ctr.LogPath)
}

// ReadLog returns the content of a log file in CRI format. A record without its
// newline, which is still being written, is left out.
func ReadLog(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read container log: %w", err)
	}
	var text bytes.Buffer
	for {
		record, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return text.String(), nil
		}
		b = rest
		f := bytes.SplitN(record, []byte(" "), 4) // time, stream, tags, content
		if len(f) != 4 {
			return text.String(), fmt.Errorf("read container log %s: bad record %q", path, record)
		}
		text.Write(f[3])
		if tag, _, _ := bytes.Cut(f[2], []byte(":")); string(tag) == "F" {
			text.WriteByte('\n')
		}
	}
}

// pause sleeps, or returns the error of a context that ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
