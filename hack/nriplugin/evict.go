package main

import (
	"context"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// The stub has no word for evictions, which the protocol has; they are added to its
// messages.

func evictions(ids []string) (out []*api.ContainerEviction) {
	for _, id := range ids {
		out = append(out, &api.ContainerEviction{ContainerId: id, Reason: "a test wants it"})
	}
	return out
}

func (p *plugin) setUnasked(list []*api.ContainerEviction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unasked = list
}

func (p *plugin) setEvict(list []*api.ContainerEviction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.evict = list
}

// takeUnasked returns the list once.
func (p *plugin) takeUnasked() []*api.ContainerEviction {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.unasked
	p.unasked = nil
	return l
}

// takeEvict returns the list once.
func (p *plugin) takeEvict() []*api.ContainerEviction {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.evict
	p.evict = nil
	return l
}

// addUnasked adds evictions to a request to the runtime.
func (p *plugin) addUnasked(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, _ *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker) error {
	if req.Method == "UpdateContainers" {
		var msg api.UpdateContainersRequest
		if err := proto.Unmarshal(req.Payload, &msg); err != nil {
			return err
		}
		msg.Evict = p.takeUnasked()
		payload, err := proto.Marshal(&msg)
		if err != nil {
			return err
		}
		req.Payload = payload
	}
	return invoke(ctx, req, resp)
}

// addEvictions adds evictions to an answer to the runtime.
func (p *plugin) addEvictions(ctx context.Context, unmarshal ttrpc.Unmarshaler, _ *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
	resp, err := method(ctx, unmarshal)
	switch r := resp.(type) {
	case *api.CreateContainerResponse:
		r.Evict = p.takeEvict()
	case *api.UpdateContainerResponse:
		r.Evict = p.takeEvict()
	}
	return resp, err
}
