package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sync/errgroup"
)

// gcParallel is how many pods are detached at a time: plugins wait for each
// other's locks, and for two or three of them one that hangs costs less.
const gcParallel = 4

// GC implements [Network]. After the pods on record, it lets the plugins look for
// garbage of their own, where the configuration is of CNI 1.1.0 or later. By CNI's
// definition a network belongs to one runtime: two daemons must not configure the
// same network name.
//
// The DELs of the first part run beside other calls, since each concerns a pod that
// nobody else knows. The second part is told which attachments are valid, so it is
// void as soon as there is another one: it does not begin while a pod is being
// attached, and is killed when one is to be. What a killed plugin had not collected
// by then is garbage as before; it loses nothing but its work, and the kernel takes
// its file locks away with it.
//
// A plugin that hangs costs its timeout: the caller bounds ctx.
func (c *CNI) GC(ctx context.Context, valid func() []Pod) error {
	end, err := c.gcLock.beginGC()
	if err != nil {
		return fmt.Errorf("collect garbage of the network: %w", err)
	}
	defer end()
	stale, err := c.staleIDs(valid)
	if err != nil {
		return classify(err, errdefs.ErrInternal)
	}
	return errors.Join(c.detachAll(ctx, stale), c.collectPlugins(ctx, valid))
}

// staleIDs returns the pods on record that nobody knows. The record is read first: a
// pod that came on it is known before it is.
func (c *CNI) staleIDs(valid func() []Pod) ([]string, error) {
	ids, err := c.idsOnRecord()
	if err != nil {
		return nil, err
	}
	known := c.known(valid)
	var stale []string
	for id := range ids {
		if _, ok := known[id]; !ok {
			stale = append(stale, id)
		}
	}
	slices.Sort(stale)
	return stale, nil
}

// known returns the pods that the caller or this process has attached.
func (c *CNI) known(valid func() []Pod) map[string]struct{} {
	ids := c.gcLock.pods()
	if valid == nil {
		return ids
	}
	for _, pod := range valid() {
		ids[pod.ID] = struct{}{}
	}
	return ids
}

// idsOnRecord returns the pods that are on record by us or by libcni.
func (c *CNI) idsOnRecord() (map[string]struct{}, error) {
	own, err := c.records.ids()
	if err != nil {
		return nil, err
	}
	cached, err := c.cni.GetCachedAttachments("")
	if err != nil {
		return nil, fmt.Errorf("list CNI results: %w", err)
	}
	ids := make(map[string]struct{})
	for _, id := range own {
		ids[id] = struct{}{}
	}
	for _, at := range cached {
		ids[at.ContainerID] = struct{}{}
	}
	return ids, nil
}

// detachAll goes on after errors.
func (c *CNI) detachAll(ctx context.Context, ids []string) error {
	var (
		mu    sync.Mutex
		errs  []error
		group errgroup.Group
	)
	group.SetLimit(gcParallel)
	for _, id := range ids {
		group.Go(func() error {
			if err := c.detachStale(ctx, id); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// detachStale detaches a pod unless it has been attached meanwhile.
func (c *CNI) detachStale(ctx context.Context, id string) error {
	if err := c.podLocks.Lock(ctx, id); err != nil {
		return fmt.Errorf("detach pod %s: %w", id, err)
	}
	defer c.podLocks.Unlock(id)
	if c.gcLock.has(id) {
		return nil
	}
	return c.detach(ctx, Pod{ID: id})
}

// collectPlugins runs CNI's GC verb on the configured network.
func (c *CNI) collectPlugins(ctx context.Context, valid func() []Pod) error {
	list, err := loadConfig(c.confDir)
	if err != nil {
		return nil // no network, no plugin to ask; Ready tells
	}
	if ok, _ := version.GreaterThanOrEqualTo(list.CNIVersion, "1.1.0"); !ok {
		return nil
	}
	ctx, end, err := c.gcLock.beginPlugins(ctx)
	if err != nil {
		return fmt.Errorf("collect garbage of network %s: %w", list.Name, err)
	}
	defer end()
	args, err := c.validAttachments(valid)
	if err != nil {
		return classify(err, errdefs.ErrInternal)
	}
	bounded, cancel := c.bound(ctx, c.timeout)
	defer cancel()
	if err := c.cni.GCNetworkList(bounded, list, args); err != nil {
		if errors.Is(context.Cause(ctx), errPreempted) {
			err = errPreempted // and not what each plugin that it killed has to say
		}
		return fmt.Errorf("collect garbage of network %s: %w", list.Name, classify(err, errdefs.ErrInternal))
	}
	return nil
}

// validAttachments is what the plugins must not touch: all pods that somebody knows,
// and those on record, whose DEL has failed. It is to be repeated, and they still own
// things. libcni as well would otherwise run a DEL for these.
func (c *CNI) validAttachments(valid func() []Pod) (*libcni.GCArgs, error) {
	ids, err := c.idsOnRecord()
	if err != nil {
		return nil, err
	}
	for id := range c.known(valid) {
		ids[id] = struct{}{}
	}
	args := &libcni.GCArgs{}
	for id := range ids {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: id, IfName: DefaultInterface})
	}
	return args, nil
}
