package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
)

// recover puts right what an earlier process left: leases of unfinished pulls,
// downloads without a name, half-unpacked layers, and holds on layers that are
// known from disk only.
func (s *Store) recover(ctx context.Context) error {
	s.collector.doubtful.Store(true)
	rebooted, err := s.rebooted()
	if err != nil {
		return err
	}
	// The files of a layer are flushed when its image is complete; those of an
	// interrupted pull were not, so nothing of it outlives a reboot.
	if rebooted {
		err = s.pulls.leases.deleteAll(ctx)
	} else {
		err = s.pulls.leases.adopt(ctx)
	}
	if err != nil {
		return err
	}
	if err := removeNamelessDownloads(s.dirs); err != nil {
		return err
	}
	if err := removeMappedLayers(s.dirs); err != nil {
		return err
	}
	if err := removeHalfUnpacked(ctx, s.backend); err != nil {
		return err
	}
	if err := s.rootfs.readHolds(); err != nil {
		return err
	}
	broken, err := s.catalog.dropBroken(ctx)
	if err != nil {
		return err
	}
	if err := s.catalog.dropUnusedViews(ctx); err != nil {
		return err
	}
	if rebooted || broken {
		// Layers of pulls that the reboot cut short, and parts of broken images,
		// may be damaged. They must be gone before a new pull can find and use
		// them, and only then is the boot taken note of.
		if err := s.collector.collect(ctx); err != nil {
			return err
		}
	}
	if !rebooted {
		return nil
	}
	return s.recordBoot()
}

// removeNamelessDownloads removes what a process left that died between making a
// download's directory and writing its name into it: a collection goes by that name,
// and a directory by the name's digest (containerd's plugins/content/local).
func removeNamelessDownloads(dirs layout) error {
	root := filepath.Join(dirs.content(), "ingest")
	entries, err := os.ReadDir(root)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("list downloads: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		name, err := os.ReadFile(filepath.Join(dir, "ref"))
		if err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("read name of a download: %w", err)
		}
		if digest.FromBytes(name).Encoded() == e.Name() {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove a download without a name: %w", err)
		}
	}
	return nil
}

// removeHalfUnpacked removes layers that were being unpacked: unlike a download,
// an unpack cannot be continued.
func removeHalfUnpacked(ctx context.Context, b *backend) error {
	active, err := b.snapshotNames(ctx, func(info snapshots.Info) bool { return info.Kind == snapshots.KindActive })
	if err != nil {
		return err
	}
	for _, key := range active {
		if err := b.snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove unfinished layer %s: %w", key, err)
		}
	}
	return nil
}

// rebooted says whether the machine has booted since the store was opened last.
func (s *Store) rebooted() (bool, error) {
	last, err := os.ReadFile(s.dirs.boot())
	if err != nil && !os.IsNotExist(err) {
		return false, fmt.Errorf("read boot id: %w", err)
	}
	boot, err := bootID()
	return string(last) != boot, err
}

func (s *Store) recordBoot() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.dirs.boot(), []byte(boot), 0o600); err != nil {
		return fmt.Errorf("record boot id: %w", err)
	}
	return nil
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}
