package nri

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
)

// The protocol lets a plugin evict containers, in its answers and unasked; the
// library decodes that and passes it over. It is read from the messages here.

// evictions collects what the answers to one request evict.
type evictions struct {
	mu   sync.Mutex
	list []*api.ContainerEviction // +checklocks:mu
}

type evictionsKey struct{}

// withEvictions lets collectEvictions find the collector of a request.
func withEvictions(ctx context.Context) (context.Context, *evictions) {
	e := &evictions{}
	return context.WithValue(ctx, evictionsKey{}, e), e
}

// collectEvictions is a ttrpc client interceptor: it reads the answers of plugins.
func collectEvictions(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, _ *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker) error {
	if err := invoke(ctx, req, resp); err != nil {
		return err
	}
	e, ok := ctx.Value(evictionsKey{}).(*evictions)
	if !ok {
		return nil
	}
	var answer interface {
		proto.Message
		GetEvict() []*api.ContainerEviction
	}
	switch req.Method {
	case "CreateContainer":
		answer = &api.CreateContainerResponse{}
	case "UpdateContainer":
		answer = &api.UpdateContainerResponse{}
	default:
		return nil
	}
	if err := proto.Unmarshal(resp.Payload, answer); err != nil {
		return nil // the library finds that, too
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, answer.GetEvict()...)
	return nil
}

// serve is a ttrpc server interceptor, around the requests of plugins. Without a
// code of ours the library answers every error with Unknown.
func (p *Plugins) serve(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	resp, err := p.evictUnasked(ctx, unmarshal, info, method)
	return resp, p.opts.Status(err)
}

// evictUnasked reads what a request of a plugin evicts.
func (p *Plugins) evictUnasked(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	var update *api.UpdateContainersRequest
	resp, err := method(ctx, func(v any) error {
		err := unmarshal(v)
		update, _ = v.(*api.UpdateContainersRequest)
		return err
	})
	if err != nil || update == nil {
		return resp, err
	}
	return resp, p.evict(ctx, update.GetEvict())
}

// evict ends containers. It goes on after one that fails.
func (p *Plugins) evict(ctx context.Context, list []*api.ContainerEviction) error {
	var errs []error
	for _, e := range list {
		klog.InfoS("A plugin evicts a container", "container", e.GetContainerId(), "reason", e.GetReason())
		if err := p.calls.Evict(ctx, e.GetContainerId(), e.GetReason()); err != nil {
			errs = append(errs, fmt.Errorf("evict container %s: %w", e.GetContainerId(), err))
		}
	}
	return errors.Join(errs...)
}

// evictLogged is for evictions that came with an answer: who asked is not waiting.
func (p *Plugins) evictLogged(ctx context.Context, e *evictions) {
	e.mu.Lock()
	list := e.list
	e.mu.Unlock()
	if err := p.evict(ctx, list); err != nil {
		klog.ErrorS(err, "Failed to evict a container for a plugin")
	}
}
