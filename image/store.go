package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/semaphore"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/cri-sandbox/cri-sandbox/internal/keylock"
)

const (
	// namespace separates nothing here, there is one; containerd's metadata
	// cannot do without.
	namespace = "cri-sandbox"

	// snapshotterName is a key in the metadata; changing it orphans snapshots.
	snapshotterName = "overlayfs"

	// lockWait bounds the wait for the lock on meta.db. A predecessor that is
	// about to exit may still hold it; anything longer is a second daemon.
	lockWait = time.Second

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
// comment for what it guarantees.
type Store struct {
	opts      Options
	pinned    Pinned
	db        *metadata.DB
	content   content.Store
	names     images.Store
	leases    leases.Manager
	snapshots snapshots.Snapshotter
	overlay   snapshots.Snapshotter // below snapshots, without metadata
	downloads *semaphore.Weighted
	unpacking keylock.Locks // by blob and chain: two pulls that share one fetch and unpack it once
	mounts    *mounter
	measured  *layerSizes
	reserve   *reserve

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // pulls and the collector
	sweeps chan chan error
	// doubtful: the disk may hold what the metadata does not know.
	doubtful atomic.Bool

	change sync.Mutex // see the package comment

	mu sync.Mutex
	// Replaced, never modified.
	index *index // +checklocks:mu
	// Key of a writable layer → its chain.
	holds map[string]string // +checklocks:mu

	pullMu sync.Mutex
	// By name.
	pulls map[string]*pull // +checklocks:pullMu
	// Of ended pulls, by lease id.
	retained map[string]retainedLease // +checklocks:pullMu
	closed   bool                     // +checklocks:pullMu
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
	meta, err := bolt.Open(filepath.Join(opts.Root, "meta.db"), 0o600, &bolt.Options{
		Timeout: lockWait, NoFreelistSync: true, NoStatistics: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open image store %s: another process uses it; stop that one or choose another root: %w",
			opts.Root, errdefs.ErrUnavailable)
	} else if err != nil {
		return nil, fmt.Errorf("open image store %s: %w", opts.Root, err)
	}
	cu := cleanup.Make(func() { _ = meta.Close() })
	defer cu.Clean()

	s := &Store{
		opts:      opts,
		downloads: semaphore.NewWeighted(int64(opts.MaxConcurrentDownloads)),
		measured:  newLayerSizes(),
		sweeps:    make(chan chan error, 1),
		holds:     map[string]string{},
		index:     &index{},
		pinned:    pinned,
		pulls:     map[string]*pull{},
		retained:  map[string]retainedLease{},
	}
	s.reserve = newReserve(opts.Root)
	s.ctx, s.cancel = context.WithCancel(namespaces.WithNamespace(context.Background(), namespace))
	cu.Add(s.cancel)
	if err := s.openBackends(meta); err != nil {
		return nil, err
	}
	cu.Add(func() { _ = s.overlay.Close() })
	if s.mounts, err = newMounter(opts.Root, s.snapshotsDir()); err != nil {
		return nil, err
	}
	cu.Add(s.mounts.close)
	if err := s.recover(scoped(ctx)); err != nil {
		return nil, fmt.Errorf("recover image store %s: %w", opts.Root, err)
	}
	s.work.Go(s.sweepLoop)
	s.sweepSoon()
	cu.Release()
	return s, nil
}

func (s *Store) openBackends(meta *bolt.DB) error {
	disk, err := local.NewStore(filepath.Join(s.opts.Root, "content"))
	if err != nil {
		return fmt.Errorf("open content store %s: %w", s.opts.Root, err)
	}
	s.overlay, err = overlay.NewSnapshotter(filepath.Join(s.opts.Root, "overlayfs"),
		// Trees are deleted in Cleanup, outside of the locks that a pull needs.
		overlay.AsynchronousRemove,
		overlay.WithUpperdirLabel)
	if err != nil {
		return fmt.Errorf("open snapshotter %s: %v: %w", s.opts.Root, err, errdefs.ErrFailedPrecondition)
	}
	s.db = metadata.NewDB(meta, diskBlobs{disk}, map[string]snapshots.Snapshotter{snapshotterName: s.overlay})
	if err := s.db.Init(s.ctx); err != nil {
		_ = s.overlay.Close()
		return fmt.Errorf("open image metadata %s: %w", s.opts.Root, err)
	}
	s.content = metaBlobs{s.db.ContentStore()}
	s.names = metadata.NewImageStore(s.db)
	s.leases = metadata.NewLeaseManager(s.db)
	s.snapshots = s.db.Snapshotter(snapshotterName)
	return nil
}

// Close ends running pulls and waits for them, and gives up the root. Mounted
// root file systems stay mounted. No method may be called after it.
func (s *Store) Close() error {
	s.pullMu.Lock()
	s.closed = true
	s.pullMu.Unlock()
	s.cancel()
	s.work.Wait()
	s.mounts.close()
	return errors.Join(s.overlay.Close(), s.db.Close())
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

func (s *Store) snapshotsDir() string {
	return filepath.Join(s.opts.Root, "overlayfs", "snapshots")
}

func (s *Store) rootfsDir(key string) string {
	return filepath.Join(s.opts.Root, "rootfs", key)
}

// scoped adds what containerd's metadata wants in a context.
func scoped(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, namespace)
}
