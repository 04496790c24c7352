package image

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
)

// inventory is what is known in memory: the images, and which root file systems stand
// on layers. One lock covers both, so that no image is removed between the look for it
// and the note that a root file system stands on its layers.
type inventory struct {
	mu sync.Mutex
	// Replaced, never modified.
	index *index // +checklocks:mu
	// Key of a root file system → its chain.
	holds map[string]string // +checklocks:mu
}

func newInventory() *inventory {
	return &inventory{index: &index{}, holds: map[string]string{}}
}

func (v *inventory) current() *index {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.index
}

func (v *inventory) publish(x *index) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.index = x
}

// hold notes that key stands on the image's layers, which then outlive the image.
func (v *inventory) hold(key, id string) (layers, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.holds[key]; ok {
		return layers{}, fmt.Errorf("rootfs %s: %w", key, errdefs.ErrAlreadyExists)
	}
	img := v.index.byID[id]
	if img == nil {
		return layers{}, fmt.Errorf("image %s of rootfs %s: %w", id, key, errdefs.ErrNotFound)
	}
	v.holds[key] = img.layers.chain
	return img.layers, nil
}

// holdChain notes what an earlier process has left: key stands on a chain.
func (v *inventory) holdChain(key, chain string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.holds[key] = chain
}

// unhold ends a hold, and reports whether nothing needs its chain any more.
func (v *inventory) unhold(key string) (chain string, unused bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	chain, ok := v.holds[key]
	delete(v.holds, key)
	return chain, ok && !v.usesLocked(chain)
}

// uses reports whether an image or a root file system needs a chain.
func (v *inventory) uses(chain string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.usesLocked(chain)
}

// usesLocked is uses for callers that have the lock.
//
// +checklocks:v.mu
func (v *inventory) usesLocked(chain string) bool {
	for _, held := range v.holds {
		if held == chain {
			return true
		}
	}
	return v.index.usesChain(chain)
}
