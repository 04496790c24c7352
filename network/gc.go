package network

import (
	"context"
	"errors"
	"fmt"
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
// garbage of their own, where the configuration is of CNI 1.1.0 or later; this part
// is left out while pods are being attached. By CNI's definition a network belongs
// to one runtime: two daemons must not configure the same network name.
//
// A plugin that hangs costs its timeout: the caller bounds ctx.
func (c *CNI) GC(ctx context.Context, valid []Pod) error {
	ids, err := c.idsOnRecord()
	if err != nil {
		return classify(err, errdefs.ErrInternal)
	}
	// In this order: a pod that came on record is live before it is.
	keep := c.gate.pods()
	for _, pod := range valid {
		keep[pod.ID] = struct{}{}
	}
	var stale []string
	for id := range ids {
		if _, ok := keep[id]; !ok {
			stale = append(stale, id)
		}
	}
	failed, err := c.detachAll(ctx, stale)
	for _, id := range failed {
		keep[id] = struct{}{} // its DEL is to be repeated, and still owns things
	}
	return errors.Join(err, c.collectPlugins(ctx, keep))
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

// detachAll goes on after errors and names the pods that it could not detach.
func (c *CNI) detachAll(ctx context.Context, ids []string) (failed []string, err error) {
	var (
		mu    sync.Mutex
		errs  []error
		group errgroup.Group
	)
	group.SetLimit(gcParallel)
	for _, id := range ids {
		group.Go(func() error {
			if err := c.detach(ctx, Pod{ID: id}); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed, errs = append(failed, id), append(errs, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	return failed, errors.Join(errs...)
}

// collectPlugins runs CNI's GC verb on the configured network.
func (c *CNI) collectPlugins(parent context.Context, keep map[string]struct{}) error {
	list, err := loadConfig(c.confDir)
	if err != nil {
		return nil // no network, no plugin to ask; Ready tells
	}
	if ok, _ := version.GreaterThanOrEqualTo(list.CNIVersion, "1.1.0"); !ok {
		return nil
	}
	ctx, live, done, ok := c.gate.collect(parent)
	if !ok {
		return nil
	}
	defer done()
	bounded, cancel := c.bound(ctx, c.timeout)
	defer cancel()

	args := &libcni.GCArgs{}
	for _, ids := range []map[string]struct{}{keep, live} {
		for id := range ids {
			args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: id, IfName: DefaultInterface})
		}
	}
	err = c.cni.GCNetworkList(bounded, list, args)
	if ctx.Err() != nil && parent.Err() == nil {
		return nil // a pod is to be attached; the next GC does the rest
	}
	if err != nil {
		return fmt.Errorf("collect garbage of network %s: %w", list.Name, classify(err, errdefs.ErrInternal))
	}
	return nil
}
