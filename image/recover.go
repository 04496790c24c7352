package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
	"k8s.io/klog/v2"
)

// recover puts right what an earlier process left: leases of unfinished pulls,
// downloads without a name, half-unpacked layers, and holds on layers that are
// known from disk only.
func (s *Store) recover(ctx context.Context) error {
	s.doubtful.Store(true)
	rebooted, err := s.adoptLeases(ctx)
	if err != nil {
		return err
	}
	if err := s.removeNamelessDownloads(); err != nil {
		return err
	}
	if err := s.removeMappedLayers(); err != nil {
		return err
	}
	if err := s.removeHalfUnpacked(ctx); err != nil {
		return err
	}
	if err := s.readHolds(); err != nil {
		return err
	}
	broken, err := s.reindex(ctx, nil)
	if err != nil {
		return err
	}
	if err := s.deleteNames(ctx, broken); err != nil {
		return err
	}
	if err := s.dropUnusedViews(ctx); err != nil {
		return err
	}
	if rebooted || len(broken) > 0 {
		// Layers of pulls that the reboot cut short, and parts of broken images,
		// may be damaged. They must be gone before a new pull can find and use
		// them, and only then is the boot taken note of.
		if err := s.collect(ctx); err != nil {
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
func (s *Store) removeNamelessDownloads() error {
	root := filepath.Join(s.opts.Root, "content", "ingest")
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

// adoptLeases keeps the downloads of interrupted pulls for a retry. After a
// reboot it drops them: the files of a layer are flushed when its image is
// complete, and these were not.
func (s *Store) adoptLeases(ctx context.Context) (rebooted bool, _ error) {
	last, err := os.ReadFile(s.bootFile())
	if err != nil && !os.IsNotExist(err) {
		return false, fmt.Errorf("read boot id: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return false, err
	}
	rebooted = string(last) != boot
	list, err := s.leases.List(ctx)
	if err != nil {
		return false, fmt.Errorf("list leases: %w", err)
	}
	for _, l := range list {
		if rebooted {
			if err := s.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
				return false, fmt.Errorf("remove lease %s: %w", l.ID, err)
			}
			continue
		}
		s.retain(l.ID, l.Labels[labelName])
	}
	return rebooted, nil
}

// removeHalfUnpacked removes layers that were being unpacked: unlike a download,
// an unpack cannot be continued.
func (s *Store) removeHalfUnpacked(ctx context.Context) error {
	var keys []string
	err := s.snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindActive {
			keys = append(keys, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, key := range keys {
		if err := s.snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove unfinished layer %s: %w", key, err)
		}
	}
	return nil
}

func (s *Store) dropUnusedViews(ctx context.Context) error {
	var chains []string
	err := s.snapshots.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if chain, ok := strings.CutPrefix(info.Name, viewPrefix); ok {
			chains = append(chains, chain)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	s.change.Lock()
	defer s.change.Unlock()
	for _, chain := range chains {
		if _, err := s.dropUnusedView(ctx, chain); err != nil {
			return err
		}
	}
	return nil
}

// layerRecord is layer.json beside a writable layer.
type layerRecord struct {
	Version int    `json:"version"` // 1
	Chain   string `json:"chain"`   // "" when the image has no layer
}

func parseLayerRecord(blob []byte) (layerRecord, error) {
	var r layerRecord
	if err := json.Unmarshal(blob, &r); err != nil {
		return layerRecord{}, err
	}
	if r.Version != 1 {
		return layerRecord{}, fmt.Errorf("version %d is not known", r.Version)
	}
	return r, nil
}

// readHolds finds out which chains the writable layers on disk stand on. One
// without a readable record was never mounted and holds nothing; RootfsKeys
// still names it, so that the caller removes it.
func (s *Store) readHolds() error {
	keys, err := s.RootfsKeys()
	if err != nil {
		return err
	}
	for _, key := range keys {
		var r layerRecord
		blob, err := os.ReadFile(filepath.Join(s.rootfsDir(key), "layer.json"))
		if err == nil {
			r, err = parseLayerRecord(blob)
		}
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				klog.ErrorS(err, "Failed to read the record of a writable layer; its image layers are not held", "key", key)
			}
			continue
		}
		s.mu.Lock()
		s.holds[key] = r.Chain
		s.mu.Unlock()
	}
	return nil
}

func (s *Store) bootFile() string { return filepath.Join(s.opts.Root, "boot") }

func (s *Store) recordBoot() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.bootFile(), []byte(boot), 0o600); err != nil {
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
