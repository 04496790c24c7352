package testenv

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxMessage is the kubelet's limit, in bytes, for an answer.
const maxMessage = 16 << 20

// Client speaks CRI to one endpoint. It remembers the pods that were made through
// it, so that they can be removed whatever happens. Safe for concurrent use.
type Client struct {
	Conn    *grpc.ClientConn
	Runtime runtimeapi.RuntimeServiceClient
	Image   runtimeapi.ImageServiceClient

	closed   sync.Once
	closeErr error

	mu sync.Mutex
	// Sandbox ids.
	pods map[string]bool // +checklocks:mu
	// All ids ever seen, also of removed things.
	ids map[string]bool // +checklocks:mu
}

// Dial makes a client of an endpoint such as unix:///run/x.sock. The connection
// is made by the first call and made again after a restart of the other side.
func Dial(endpoint string, opts ...grpc.DialOption) (*Client, error) {
	if strings.HasPrefix(endpoint, "/") {
		endpoint = "unix://" + endpoint
	}
	c := &Client{pods: map[string]bool{}, ids: map[string]bool{}}
	conn, err := grpc.NewClient(endpoint, append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 2 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithChainUnaryInterceptor(noteCall, c.remember),
		grpc.WithStreamInterceptor(noteStream),
	)...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", endpoint, err)
	}
	c.Conn = conn
	c.Runtime = runtimeapi.NewRuntimeServiceClient(conn)
	c.Image = runtimeapi.NewImageServiceClient(conn)
	return c, nil
}

// Close ends the connection. Pods run on. It is idempotent.
func (c *Client) Close() error {
	c.closed.Do(func() { c.closeErr = c.Conn.Close() })
	return c.closeErr
}

// remember notes the ids of what is made and removed.
func (c *Client) remember(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r := reply.(type) {
	case *runtimeapi.RunPodSandboxResponse:
		c.pods[r.PodSandboxId] = true
		c.ids[r.PodSandboxId] = true
	case *runtimeapi.CreateContainerResponse:
		c.ids[r.ContainerId] = true
	case *runtimeapi.RemovePodSandboxResponse:
		delete(c.pods, req.(*runtimeapi.RemovePodSandboxRequest).PodSandboxId)
	}
	return nil
}

// Note adds a pod that was made by another client, such as crictl.
func (c *Client) Note(podID string, containerIDs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods[podID] = true
	c.ids[podID] = true
	for _, id := range containerIDs {
		c.ids[id] = true
	}
}

// IDs returns the ids of all pods and containers that were ever made through
// this client, or noted.
func (c *Client) IDs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 0, len(c.ids))
	for id := range c.ids {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	return ids
}

// RemoveAll stops and removes every pod that was made through this client and
// still exists. It goes on after an error and returns all of them.
func (c *Client) RemoveAll(ctx context.Context) error {
	c.mu.Lock()
	pods := make([]string, 0, len(c.pods))
	for id := range c.pods {
		pods = append(pods, id)
	}
	c.mu.Unlock()
	errs := make([]error, len(pods))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i, id := range pods {
		wg.Add(1)
		go func() {
			defer wg.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			if errs[i] = c.RemovePod(ctx, id); status.Code(errs[i]) == codes.NotFound {
				errs[i] = nil // removed by another client, such as crictl
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}
