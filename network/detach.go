package network

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// detach undoes all that is on record for a pod: by our record, else by libcni's,
// which has an entry if ADD came to its end.
func (c *CNI) detach(ctx context.Context, pod Pod) error {
	id := pod.ID
	a, missing := c.records.load(id)
	switch {
	case missing == nil:
		return c.del(ctx, a)
	case !errdefs.IsNotFound(missing) && !errors.Is(missing, errDamaged):
		return classify(missing, errdefs.ErrInternal)
	}
	cached, err := c.cni.GetCachedAttachments(id)
	if err != nil {
		return fmt.Errorf("detach pod %s: %w", id, classify(err, errdefs.ErrInternal))
	}
	for _, at := range cached {
		if err := c.del(ctx, fromCache(at)); err != nil {
			return err
		}
	}
	if len(cached) > 0 || errdefs.IsNotFound(missing) {
		return classify(c.records.remove(id), errdefs.ErrInternal)
	}
	return c.detachDamaged(ctx, pod, missing)
}

// detachDamaged detaches a pod of whose record only the name is left, with the
// present configuration and what the caller knows.
func (c *CNI) detachDamaged(ctx context.Context, pod Pod, damage error) error {
	list, err := loadConfig(c.confDir)
	if err != nil {
		return fmt.Errorf("detach pod %s: %w, and there is no other configuration to go by: %w", pod.ID, damage, err)
	}
	return c.del(ctx, newAttachment(pod, list))
}

// fromCache reads an attachment of libcni's cache.
func fromCache(at *libcni.NetworkAttachment) *attachment {
	return &attachment{
		Version:      attachmentVersion,
		PodID:        at.ContainerID,
		Interface:    at.IfName,
		NetNS:        at.NetNS,
		Args:         at.CniArgs,
		Capabilities: at.CapabilityArgs,
		Config:       at.Config,
	}
}

// del runs DEL for an attachment, with the configuration that ADD had, and takes
// it off the record. It stops at the first plugin that fails, as CNI demands, and
// can be repeated.
func (c *CNI) del(ctx context.Context, a *attachment) error {
	list, err := parseList(a.Config)
	if err != nil {
		return fmt.Errorf("detach pod %s: %w", a.PodID, classify(err, errdefs.ErrInternal))
	}
	ctx, cancel := c.bound(ctx, c.timeout)
	defer cancel()

	rt := a.runtimeConf()
	ns, err := c.namespaceForDel(list, rt)
	if err != nil {
		return fmt.Errorf("detach pod %s: %w", a.PodID, classify(err, errdefs.ErrInternal))
	}
	defer ns.close()
	rt.NetNS = ns.path

	crashpoint.Here("before cni del")
	if err := c.libcni(a.PodID).DelNetworkList(ctx, list, rt); err != nil {
		return fmt.Errorf("detach pod %s from network %s: %w", a.PodID, list.Name, classify(err, errdefs.ErrUnavailable))
	}
	return c.records.remove(a.PodID)
}
