package network

import (
	"context"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// statusAge is how long the plugins' own word on their readiness counts. The
// kubelet asks every few seconds, and each answer is a process a plugin.
const statusAge = 5 * time.Second

// statusMemo remembers what the plugins of a configuration said last. Another
// configuration, and a bad answer, are asked about again at once.
type statusMemo struct {
	mu     sync.Mutex
	config string    // +checklocks:mu
	asked  time.Time // +checklocks:mu
}

func (m *statusMemo) fresh(config string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.config == config && time.Since(m.asked) < statusAge
}

func (m *statusMemo) good(config string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.config, m.asked = config, time.Now()
}

// askPlugins lets the plugins say whether they are ready, CNI 1.1.0, STATUS.
func (c *CNI) askPlugins(ctx context.Context, list *libcni.NetworkConfigList) error {
	config := string(list.Bytes)
	if c.status.fresh(config) {
		return nil
	}
	ctx, cancel := c.bound(ctx, min(statusTimeout, c.timeout))
	defer cancel()
	if err := c.cni.GetStatusNetworkList(ctx, list); err != nil {
		return err
	}
	c.status.good(config)
	return nil
}
