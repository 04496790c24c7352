package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sync/semaphore"
	"gvisor.dev/gvisor/pkg/cleanup"
)

const (
	defaultConcurrentDownloads = 3
	defaultPullIdleTimeout     = time.Minute
)

// Options of a store. They are not changed after Open.
type Options struct {
	// Root is the directory that holds everything; created when absent. It must be
	// able to hold the upper directory of an overlay mount, and outlive a reboot.
	Root string

	// RegistryConfigDir has containerd's layout: <host>/hosts.toml. It is read
	// anew for each pull. Empty or absent means no configuration.
	RegistryConfigDir string

	// MaxConcurrentDownloads bounds the layers on the wire, over all pulls; 0 is 3.
	MaxConcurrentDownloads int

	// PullIdleTimeout ends a pull that waits for a registry which has sent
	// nothing for this long; 0 is a minute.
	PullIdleTimeout time.Duration

	// Limits bound what one pull may bring.
	Limits Limits

	// Pinned says which images carry Image.Pinned; see pinned.go.
	Pinned []string
}

// Store keeps images and root file systems below one directory. See the package
// comment for what it guarantees. It is the face of the package: each of its methods
// hands on to the part that owns the matter.
type Store struct {
	opts    Options
	dirs    layout
	backend *backend
	mounts  *mounter
	reserve *reserve

	catalog   *catalog
	pulls     *puller
	collector *collector
	rootfs    *rootfsStore
	usage     *usageMeter

	cancel context.CancelFunc // ends the work of the store
	work   sync.WaitGroup     // pulls and the collector
}

// Open takes possession of opts.Root and puts right what an earlier process
// left unfinished. A root that another process holds is errdefs.ErrUnavailable;
// one that cannot carry overlay mounts, errdefs.ErrFailedPrecondition.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	pinned, err := ParsePinned(opts.Pinned)
	if err != nil {
		return nil, err
	}
	// The libraries narrate on a logger of their own, at level error also what
	// is none (the unpacker removes a failed layer twice). What matters comes
	// back to us as errors.
	_ = log.SetLevel("fatal")

	for _, dir := range []string{"", "content", "overlayfs", "rootfs", "empty", "trash", "mapped"} {
		if err := os.MkdirAll(filepath.Join(opts.Root, dir), 0o700); err != nil {
			return nil, fmt.Errorf("create image store %s: %w", opts.Root, err)
		}
	}
	s := &Store{opts: opts, dirs: layout{opts.Root}}
	work, cancel := context.WithCancel(scoped(context.Background()))
	s.cancel = cancel
	cu := cleanup.Make(cancel)
	defer cu.Clean()
	if s.backend, err = openBackend(work, s.dirs); err != nil {
		return nil, err
	}
	cu.Add(func() { _ = s.backend.close() })
	s.reserve = newReserve(opts.Root)
	if s.mounts, err = newMounter(opts.Root, s.dirs.snapshots()); err != nil {
		return nil, err
	}
	cu.Add(s.mounts.close)
	s.assemble(work, pinned)
	if err := s.recover(scoped(ctx)); err != nil {
		return nil, fmt.Errorf("recover image store %s: %w", opts.Root, err)
	}
	s.work.Go(s.collector.run)
	s.collector.sweepSoon()
	cu.Release()
	return s, nil
}

// assemble makes the parts of the store. Their work ends with the context.
func (s *Store) assemble(work context.Context, pinned Pinned) {
	s.collector = newCollector(work, s.dirs, s.backend)
	leases := newPullLeases(s.backend, s.collector.sweepSoon)
	s.collector.leases = leases
	s.catalog = &catalog{dirs: s.dirs, backend: s.backend, known: newInventory(), leases: leases, pinned: pinned}
	s.pulls = &puller{
		opts: s.opts, backend: s.backend, catalog: s.catalog, leases: leases, collector: s.collector,
		mounts: s.mounts, reserve: s.reserve, slots: semaphore.NewWeighted(int64(s.opts.MaxConcurrentDownloads)),
		ctx: work, work: &s.work, running: map[string]*pull{},
	}
	s.rootfs = &rootfsStore{
		dirs: s.dirs, mounts: s.mounts, catalog: s.catalog, collector: s.collector, reserve: s.reserve, ctx: work,
	}
	s.usage = &usageMeter{dirs: s.dirs, overlay: s.backend.overlay}
}

// Close ends running pulls and waits for them, and gives up the root. Mounted
// root file systems stay mounted. No method may be called after it.
func (s *Store) Close() error {
	s.pulls.refuse()
	s.cancel()
	s.work.Wait()
	s.mounts.close()
	return s.backend.close()
}

func (o *Options) complete() error {
	if !filepath.IsAbs(o.Root) || strings.Contains(o.Root, ":") {
		// The snapshotter joins layer paths with colons.
		return fmt.Errorf("image root %q must be an absolute path without a colon: %w", o.Root, errdefs.ErrInvalidArgument)
	}
	o.Root = filepath.Clean(o.Root)
	if o.MaxConcurrentDownloads <= 0 {
		o.MaxConcurrentDownloads = defaultConcurrentDownloads
	}
	if o.PullIdleTimeout <= 0 {
		o.PullIdleTimeout = defaultPullIdleTimeout
	}
	o.Limits.complete()
	return nil
}
