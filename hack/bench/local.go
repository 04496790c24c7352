package main

import (
	"context"
	"strings"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// setUp makes the node of --local, and that of --vs-config or --vs-binary, which is nil
// without; undo gets what removes them. It sets the options that follow from them.
func setUp(ctx context.Context, o *options, undo *[]func() error) (first, second *testenv.Env, err error) {
	if first, err = testenv.New(ctx, testenv.Options{}); err != nil {
		return nil, nil, err
	}
	*undo = append(*undo, first.Close)
	if err := fillIn(ctx, o, first); err != nil {
		return nil, nil, err
	}
	if !o.vsLocal() {
		return first, nil, nil
	}
	// Both pull from the first one's registry, so that the images are the same.
	if second, err = testenv.New(ctx, testenv.Options{Config: o.vsConfig, Binary: o.vsBinary, NoImages: true}); err != nil {
		return nil, nil, err
	}
	*undo = append(*undo, second.Close)
	o.vs, o.vsPSSMatch = second.Endpoint, o.pssMatch
	return first, second, nil
}

// fillIn sets the options that --local knows itself.
func fillIn(ctx context.Context, o *options, env *testenv.Env) (err error) {
	o.endpoint, o.imageEndpoint = env.Endpoint, ""
	if o.image == "" {
		o.image = env.Images["busybox"]
	}
	if o.pssMatch == "" {
		o.pssMatch = "cri-sandbox-(boot|gofer|sentry)"
	}
	if o.pull == "" && wanted(o.only, "pull") {
		if o.pull, o.pullBytes, err = pushBigImage(ctx, env.Registry); err != nil {
			return err
		}
	}
	if o.filesImage == "" && wanted(o.only, "files") {
		if o.filesImage, err = pushFilesImage(ctx, env.Registry); err != nil {
			return err
		}
	}
	return nil
}

// isOf tells the target which node it is the daemon of.
func (t *target) isOf(env *testenv.Env, o *options) {
	t.daemonPID, t.kill, t.start, t.root = env.Daemon.PID, env.Kill, env.Spawn, env.Root
	// Another runtime's cgroups may be named otherwise, and are to be the same.
	if t.cgroup == "" && (o.vs == "" || o.vsLocal()) {
		t.cgroup = env.CgroupParent
	}
}

// vsLocal tells whether the second target is another local daemon.
func (o *options) vsLocal() bool { return o.vsConfig != "" || o.vsBinary != "" }

// oneLine is a configuration as part of a target's name.
func oneLine(config string) string { return strings.Join(strings.Fields(config), " ") }
