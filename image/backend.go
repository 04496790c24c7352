package image

import (
	"context"
	"errors"
	"fmt"
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
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"gvisor.dev/gvisor/pkg/cleanup"
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
)

// backend is what containerd's libraries keep of a store.
type backend struct {
	db        *metadata.DB
	content   content.Store
	names     images.Store
	leases    leases.Manager
	snapshots snapshots.Snapshotter
	overlay   snapshots.Snapshotter // below snapshots, without metadata
}

// openBackend takes possession of a root, whose directories exist.
func openBackend(ctx context.Context, dirs layout) (*backend, error) {
	meta, err := bolt.Open(dirs.metadata(), 0o600, &bolt.Options{
		Timeout: lockWait, NoFreelistSync: true, NoStatistics: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open image store %s: another process uses it; stop that one or choose another root: %w",
			dirs.root, errdefs.ErrUnavailable)
	} else if err != nil {
		return nil, fmt.Errorf("open image store %s: %w", dirs.root, err)
	}
	cu := cleanup.Make(func() { _ = meta.Close() })
	defer cu.Clean()
	disk, err := local.NewStore(dirs.content())
	if err != nil {
		return nil, fmt.Errorf("open content store %s: %w", dirs.root, err)
	}
	b := &backend{}
	b.overlay, err = overlay.NewSnapshotter(dirs.overlay(),
		// Trees are deleted in Cleanup, outside of the locks that a pull needs.
		overlay.AsynchronousRemove,
		overlay.WithUpperdirLabel)
	if err != nil {
		return nil, fmt.Errorf("open snapshotter %s: %v: %w", dirs.root, err, errdefs.ErrFailedPrecondition)
	}
	cu.Add(func() { _ = b.overlay.Close() })
	b.db = metadata.NewDB(meta, diskBlobs{disk}, map[string]snapshots.Snapshotter{snapshotterName: b.overlay})
	if err := b.db.Init(ctx); err != nil {
		return nil, fmt.Errorf("open image metadata %s: %w", dirs.root, err)
	}
	b.content = metaBlobs{b.db.ContentStore()}
	b.names = metadata.NewImageStore(b.db)
	b.leases = metadata.NewLeaseManager(b.db)
	b.snapshots = b.db.Snapshotter(snapshotterName)
	cu.Release()
	return b, nil
}

// close gives up the root.
func (b *backend) close() error {
	return errors.Join(b.overlay.Close(), b.db.Close())
}

// snapshotNames names the snapshots that are wanted.
func (b *backend) snapshotNames(ctx context.Context, want func(snapshots.Info) bool) ([]string, error) {
	var names []string
	err := b.snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if want(info) {
			names = append(names, info.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return names, nil
}

// scoped adds what containerd's metadata wants in a context.
func scoped(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, namespace)
}
