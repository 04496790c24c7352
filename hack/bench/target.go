package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// target is one endpoint under measurement.
type target struct {
	name     string // runtime name and version, and handler
	endpoint string
	client   *testenv.Client
	image    runtimeapi.ImageServiceClient
	handler  string
	cgroup   string
	logDir   string
	pss      *regexp.Regexp
	root     string // the daemon's --root; empty where it is not known

	// kill ends the daemon with SIGKILL and returns when it is gone; start starts
	// its successor and does not wait until that is ready. Nil where that is not
	// possible.
	kill, start func() error
	// daemonPID is 0 where it is not known.
	daemonPID func() int

	serial atomic.Int64 // of pod names
}

// open connects to the targets. done removes what is left of all pods and of the
// nodes that were made; it must be called also after an error.
func open(ctx context.Context, o *options) (targets []*target, done func() error, err error) {
	var closers []func() error
	done = func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	if o.podLogDir == "" {
		if o.podLogDir, err = os.MkdirTemp("", "bench-logs-"); err != nil {
			return nil, done, fmt.Errorf("make log directory: %w", err)
		}
		dir := o.podLogDir
		closers = append(closers, func() error { return os.RemoveAll(dir) })
	}
	var node, vsNode *testenv.Env
	if o.local {
		if node, vsNode, err = setUp(ctx, o, &closers); err != nil {
			return nil, done, err
		}
	}
	if err := o.programs.build(ctx, o.only, &closers); err != nil {
		return nil, done, err
	}
	first, err := connect(ctx, o.endpoint, o.imageEndpoint, o.handler, o.pssMatch, o, &closers)
	if err != nil {
		return nil, done, err
	}
	switch {
	case node != nil:
		first.isOf(node, o)
	case o.daemonCmd != "":
		first.daemonPID = func() int { pid, _ := readPID(o.daemonPID); return pid }
		first.kill = func() error { return killDaemon(o.daemonPID) }
		first.start = func() error { return startDaemon(o.daemonCmd) }
	}
	targets = append(targets, first)
	if o.vs != "" {
		second, err := connect(ctx, o.vs, o.vsImageEndpoint, o.vsHandler, o.vsPSSMatch, o, &closers)
		if err != nil {
			return nil, done, err
		}
		if vsNode != nil {
			second.isOf(vsNode, o)
			second.name += " with " + oneLine(o.vsBinary+" "+o.vsConfig)
		}
		targets = append(targets, second)
	}
	return targets, done, nil
}

// connect dials one endpoint, has it pull the images, and names the target.
func connect(ctx context.Context, endpoint, imageEndpoint, handler, pss string, o *options, closers *[]func() error) (*target, error) {
	c, err := testenv.Dial(endpoint)
	if err != nil {
		return nil, err
	}
	t := &target{endpoint: endpoint, client: c, image: c.Image, handler: handler, cgroup: o.cgroupParent, daemonPID: func() int { return 0 }}
	*closers = append(*closers, func() error {
		// The run's own context may be what ended it.
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		return errors.Join(c.RemoveAll(ctx), c.Close())
	})
	if pss != "" {
		if t.pss, err = regexp.Compile(pss); err != nil {
			return nil, fmt.Errorf("parse pattern of processes: %w", err)
		}
	}
	if imageEndpoint != "" && imageEndpoint != endpoint {
		ic, err := testenv.Dial(imageEndpoint)
		if err != nil {
			return nil, err
		}
		*closers = append(*closers, ic.Close)
		t.image = ic.Image
	}
	v, err := c.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask version of %s: %w", endpoint, err)
	}
	t.name = v.RuntimeName + " " + v.RuntimeVersion
	if handler != "" {
		t.name += " " + handler
	}
	t.logDir = filepath.Join(o.podLogDir, fmt.Sprint(len(*closers)))
	images := []string{o.image}
	if wanted(o.only, "files") {
		images = append(images, o.filesImage)
	}
	for _, image := range images {
		if _, err := t.image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}}); err != nil {
			return nil, fmt.Errorf("pull %s to %s: %w", image, endpoint, err)
		}
	}
	return t, nil
}
