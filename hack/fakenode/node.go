// Package fakenode runs the whole daemon inside a test's process, on the engine
// in memory of package enginetest: gRPC server, owner of pods, records, logs, image
// store, network namespaces and cgroups are the real ones, and so is their state on
// disk, but no sandbox is started and pods get no address. Thousands of requests a
// second are possible, and what the daemon holds can be counted.
//
// A Node owns all that it makes, below Dir and in a cgroup of its name; Close takes
// it away. It needs root, for mounts, namespaces and cgroups, and a host whose
// cgroups systemd does not manage: systemd makes a cgroup around a process, and the
// engine in memory has none.
//
// What it is not: Kill lets the operations under way end, which a SIGKILL does not.
package fakenode

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"gvisor.dev/gvisor/pkg/cleanup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/cri"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
	"github.com/cri-sandbox/cri-sandbox/image"
	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine/enginetest"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
)

// Node is a daemon and what it stands on. Its exported fields do not change, but for
// those that say so.
type Node struct {
	Dir          string
	CgroupParent string
	Engine       *enginetest.Engine
	Client       *testenv.Client
	Images       []string // references that its registry has

	// Boots and Network take the place of Engine and of the node's own network, for tests
	// of what goes wrong with them. They count from the next Start on.
	Boots   engine.Engine
	Network network.Network

	undo   cleanup.Cleanup // of what outlives the daemon
	daemon *daemon         // nil while it is down
}

// daemon is one life of the daemon.
type daemon struct {
	images *image.Store
	cni    *network.CNI
	pods   *podsandbox.Manager
	server *cri.Server
	served chan error
}

// Missing says in a sentence why no node can be made here, or nothing.
func Missing() string {
	if os.Geteuid() != 0 {
		return "needs root"
	}
	if _, systemd := cgroup.Mode(); systemd {
		return "needs a host whose cgroups systemd does not manage"
	}
	return ""
}

// New makes a node and starts its daemon.
func New(ctx context.Context) (*Node, error) {
	var id [4]byte
	rand.Read(id[:])
	n := &Node{Engine: enginetest.New(), CgroupParent: "/fakenode" + hex.EncodeToString(id[:])}
	cu := cleanup.Make(func() { n.Close() })
	defer cu.Clean()
	var err error
	// In memory where there is room for it: records and layers are written all the time.
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	if n.Dir, err = os.MkdirTemp(base, "fakenode"); err != nil {
		return nil, fmt.Errorf("make node: %w", err)
	}
	n.undo.Add(func() { os.RemoveAll(n.Dir) })
	for _, dir := range []string{"cni/conf", "cni/bin", "logs", "volumes"} {
		if err := os.MkdirAll(filepath.Join(n.Dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("make node: %w", err)
		}
	}
	if err := n.pushImages(ctx); err != nil {
		return nil, err
	}
	if n.Client, err = testenv.Dial("unix://" + n.socket()); err != nil {
		return nil, err
	}
	n.undo.Add(func() { n.Client.Close() })
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	cu.Release()
	return n, nil
}

func (n *Node) socket() string { return filepath.Join(n.Dir, "cri.sock") }

// LogDir is a directory for container logs.
func (n *Node) LogDir() string { return filepath.Join(n.Dir, "logs") }

// Volumes is a directory for what containers mount from the host.
func (n *Node) Volumes() string { return filepath.Join(n.Dir, "volumes") }

// pushImages serves two small images on loopback.
func (n *Node) pushImages(ctx context.Context) error {
	server := httptest.NewUnstartedServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	n.undo.Add(server.Close)
	n.undo.Add(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	host := strings.TrimPrefix(server.URL, "http://")
	for _, name := range []string{"one", "two"} {
		img, err := testimages.Image(v1.Config{Env: []string{"NAME=" + name}, Cmd: []string{"/bin/sh"}}, []testimages.File{
			{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n")},
			{Path: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\napp:x:1000:\n")},
			{Path: "name", Mode: 0o644, Content: []byte(name)},
		})
		if err != nil {
			return err
		}
		ref := host + "/" + name + ":latest"
		if err := testimages.PushImage(ctx, ref, img); err != nil {
			return err
		}
		n.Images = append(n.Images, ref)
	}
	return nil
}

// Start starts the daemon on what the earlier one left, and returns when it
// answers.
func (n *Node) Start(ctx context.Context) (err error) {
	d := &daemon{served: make(chan error, 1)}
	cu := cleanup.Make(func() { d.close() })
	defer cu.Clean()
	root, state := filepath.Join(n.Dir, "root"), filepath.Join(n.Dir, "state")
	if d.images, err = image.Open(ctx, image.Options{Root: filepath.Join(root, "images")}); err != nil {
		return fmt.Errorf("open image store: %w", err)
	}
	d.cni, err = network.NewCNI(network.Options{
		ConfDir: filepath.Join(n.Dir, "cni", "conf"), BinDirs: []string{filepath.Join(n.Dir, "cni", "bin")}, CacheDir: filepath.Join(root, "cni"),
	})
	if err != nil {
		return fmt.Errorf("open network: %w", err)
	}
	var boots engine.Engine = n.Engine
	if n.Boots != nil {
		boots = n.Boots
	}
	d.pods, err = podsandbox.New(podsandbox.Options{
		Paths:   layout.Paths{Root: root, State: state},
		Engines: engine.Handlers{"": boots, "gvisor": boots}, Images: d.images, CNI: cmp.Or[network.Network](n.Network, network.Host{}),
		SeccompRoot: filepath.Join(n.Dir, "seccomp"),
	})
	if err != nil {
		return err
	}
	if err := d.pods.Recover(ctx); err != nil {
		return fmt.Errorf("take over pods: %w", err)
	}
	d.server, err = cri.New(cri.Options{
		Pods: d.pods, Images: d.images, Network: d.cni, Version: "test",
		Streaming: cri.StreamingOptions{Address: "127.0.0.1", IdleTimeout: time.Minute, CreationTimeout: time.Minute},
	})
	if err != nil {
		return err
	}
	l, err := cri.Listen("unix://"+n.socket(), "")
	if err != nil {
		return err
	}
	go func() { d.served <- d.server.Serve(l) }()
	n.daemon = d
	cu.Release()
	return n.awaitAnswer(ctx)
}

// awaitAnswer returns when the client reaches this daemon: it may not have heard
// of the end of the one before.
func (n *Node) awaitAnswer(ctx context.Context) error {
	for {
		n.Client.Conn.ResetConnectBackoff()
		_, err := n.Client.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reach the daemon: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
}

// Kill ends the daemon and lets pods run. A daemon that is down is no error.
func (n *Node) Kill() error {
	d := n.daemon
	n.daemon = nil
	if d == nil {
		return nil
	}
	return d.close()
}

// close lets go of all that a daemon holds.
func (d *daemon) close() error {
	var errs []error
	if d.server != nil {
		d.server.Stop(0)
		errs = append(errs, <-d.served)
	}
	if d.pods != nil {
		errs = append(errs, d.pods.Close())
	}
	if d.cni != nil {
		d.cni.Close()
	}
	if d.images != nil {
		errs = append(errs, d.images.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop daemon: %w", err)
	}
	return nil
}

// Close removes the pods, stops the daemon and takes everything away.
func (n *Node) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if n.daemon != nil {
		errs = append(errs, n.RemoveAll(ctx), n.Kill())
	}
	errs = append(errs, n.unmount())
	n.undo.Clean()
	errs = append(errs, testenv.RemoveCgroups(n.CgroupParent))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close node: %w", err)
	}
	return nil
}

// unmount takes off what a test that failed left mounted: RemoveAll must not walk
// into it.
func (n *Node) unmount() error {
	if n.Dir == "" { // it was never made
		return nil
	}
	return testenv.UnmountBelow(n.Dir)
}
