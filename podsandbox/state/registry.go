package state

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/layout"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// Registry has all pods and containers of a daemon, by ids and names. Its methods are
// safe for concurrent use.
type Registry struct {
	records *record.Store
	paths   layout.Paths
	events  *broadcaster

	mu sync.RWMutex
	// +checklocks:mu
	pods map[string]*Pod
	// +checklocks:mu
	containers map[string]*Container
	// +checklocks:mu
	podNames map[string]*Pod // by PodName
	// +checklocks:mu
	containerNames map[string]*Container // by ContainerName
}

// Open takes the records of a daemon. Load must be called next.
func Open(paths layout.Paths) (*Registry, error) {
	records, err := record.Open(paths.Records())
	if err != nil {
		return nil, err
	}
	return &Registry{
		records: records, paths: paths, events: newBroadcaster(),
		pods: map[string]*Pod{}, containers: map[string]*Container{},
		podNames: map[string]*Pod{}, containerNames: map[string]*Container{},
	}, nil
}

// Close ends the streams of all subscribers.
func (r *Registry) Close() { r.events.close() }

// Load reads the records that an earlier daemon has left; the pods are to be taken over
// (Pod.TakenOver). Records that are damaged are set aside and reported.
func (r *Registry) Load() (damaged []error, _ error) {
	loaded, damaged, err := r.records.Load()
	if err != nil {
		return nil, err
	}
	for _, l := range loaded {
		p := newPod(l.Pod, r.events, r.paths.NetNS(l.Pod.Meta.ID))
		p.Lost = l.Lost
		r.addPod(p)
		for _, c := range l.Containers {
			r.addContainer(newContainer(p, c, false))
		}
	}
	return damaged, nil
}

// newID is 256 random bits in hex: the form that tools around CRI expect.
func newID() string {
	var b [32]byte
	rand.Read(b[:]) // never fails, crypto/rand
	return hex.EncodeToString(b[:])
}

// CreatePod writes the record of a new pod, Creating, and knows it from then on.
func (r *Registry) CreatePod(cfg *runtimeapi.PodSandboxConfig, handler, bootID string) (*Pod, error) {
	written, err := r.records.CreatePod(record.PodMeta{
		ID: newID(), Handler: handler, CreatedAt: time.Now().UnixNano(),
		Config: record.Message[*runtimeapi.PodSandboxConfig]{Proto: cfg},
	}, record.PodStatus{Phase: lifecycle.Creating, BootID: bootID})
	if err != nil {
		return nil, err
	}
	p := newPod(written, r.events, r.paths.NetNS(written.Meta.ID))
	p.TakenOver()
	r.addPod(p)
	return p, nil
}

// CreateContainer writes the record of a new container, Creating, and knows it from then
// on. It gives meta its id, pod and time. The caller calls CreationEnded.
func (r *Registry) CreateContainer(p *Pod, meta record.ContainerMeta) (*Container, error) {
	meta.ID, meta.PodID, meta.CreatedAt = newID(), p.ID(), time.Now().UnixNano()
	written, err := p.CreateContainer(meta, record.ContainerStatus{Phase: lifecycle.Creating})
	if err != nil {
		return nil, err
	}
	c := newContainer(p, written, true)
	r.addContainer(c)
	return c, nil
}

// DeletePod removes the record, forgets the pod, and tells that. After an error it is
// known still.
func (r *Registry) DeletePod(p *Pod) error {
	p.order.Lock()
	defer p.order.Unlock()
	if err := p.Delete(); err != nil {
		return fmt.Errorf("remove record: %w", err)
	}
	r.FreeName(p)
	r.mu.Lock()
	delete(r.pods, p.ID())
	r.mu.Unlock()
	p.publishLocked(p.ID(), runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return nil
}

// DeleteContainer removes the record, forgets the container, and tells that if it was
// announced to anybody. After an error it is known still.
func (r *Registry) DeleteContainer(c *Container, announced bool) error {
	c.Pod.order.Lock()
	defer c.Pod.order.Unlock()
	if err := c.Delete(); err != nil {
		return fmt.Errorf("remove record: %w", err)
	}
	r.dropContainer(c)
	c.MarkEnded()
	if announced {
		c.Pod.publishLocked(c.ID(), runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	}
	return nil
}

func (r *Registry) addPod(p *Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods[p.ID()] = p
	if !p.Status().Abandoned { // the identity may be another's already
		r.podNames[PodName(p.Config().GetMetadata())] = p
	}
}

// FreeName lets another pod have this one's identity.
func (r *Registry) FreeName(p *Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := PodName(p.Config().GetMetadata())
	if r.podNames[key] == p {
		delete(r.podNames, key)
	}
}

func (r *Registry) addContainer(c *Container) {
	r.mu.Lock()
	r.containers[c.ID()] = c
	r.containerNames[ContainerName(c.Pod.ID(), c.Config().GetMetadata())] = c
	r.mu.Unlock()
	c.Pod.addContainer(c)
}

func (r *Registry) dropContainer(c *Container) {
	r.mu.Lock()
	delete(r.containers, c.ID())
	key := ContainerName(c.Pod.ID(), c.Config().GetMetadata())
	if r.containerNames[key] == c {
		delete(r.containerNames, key)
	}
	r.mu.Unlock()
	c.Pod.dropContainer(c.ID())
}

func (r *Registry) PodNamed(key string) *Pod {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.podNames[key]
}

func (r *Registry) ContainerNamed(key string) *Container {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.containerNames[key]
}

// FindPod takes an id or a prefix of exactly one.
func (r *Registry) FindPod(id string) (*Pod, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return find(r.pods, "pod", id)
}

// FindContainer takes an id or a prefix of exactly one.
func (r *Registry) FindContainer(id string) (*Container, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return find(r.containers, "container", id)
}

func find[T any](all map[string]T, kind, id string) (T, error) {
	var found T
	if id == "" {
		return found, fmt.Errorf("%s id is empty: %w", kind, errdefs.ErrInvalidArgument)
	}
	if v, ok := all[id]; ok {
		return v, nil
	}
	n := 0
	for full, v := range all {
		if strings.HasPrefix(full, id) {
			found = v
			n++
		}
	}
	switch n {
	case 1:
		return found, nil
	case 0:
		return found, fmt.Errorf("%s %q does not exist: %w", kind, id, errdefs.ErrNotFound)
	}
	var none T
	return none, fmt.Errorf("%s id %q is the beginning of %d ids, give more of it: %w", kind, id, n, errdefs.ErrInvalidArgument)
}

// Pods are ordered by the time of creation.
func (r *Registry) Pods() []*Pod {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ps := make([]*Pod, 0, len(r.pods))
	for _, p := range r.pods {
		ps = append(ps, p)
	}
	sort.Slice(ps, func(i, j int) bool { return ps[i].Meta.CreatedAt < ps[j].Meta.CreatedAt })
	return ps
}

// Containers are ordered by the time of creation.
func (r *Registry) Containers() []*Container {
	r.mu.RLock()
	defer r.mu.RUnlock()
	cs := make([]*Container, 0, len(r.containers))
	for _, c := range r.containers {
		cs = append(cs, c)
	}
	sort.Slice(cs, func(i, j int) bool { return cs[i].Meta.CreatedAt < cs[j].Meta.CreatedAt })
	return cs
}
