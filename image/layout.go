package image

import "path/filepath"

// layout says where things lie below the root of a store; see the package comment.
type layout struct{ root string }

func (l layout) content() string          { return filepath.Join(l.root, "content") }
func (l layout) overlay() string          { return filepath.Join(l.root, "overlayfs") }
func (l layout) snapshots() string        { return filepath.Join(l.root, "overlayfs", "snapshots") }
func (l layout) rootfs(key string) string { return filepath.Join(l.root, "rootfs", key) }
func (l layout) mapped() string           { return filepath.Join(l.root, "mapped") }
func (l layout) trash() string            { return filepath.Join(l.root, "trash") }
func (l layout) metadata() string         { return filepath.Join(l.root, "meta.db") }
func (l layout) boot() string             { return filepath.Join(l.root, "boot") }

// upper is the upper directory of a root file system that is an overlay mount.
func (l layout) upper(key string) string { return filepath.Join(l.rootfs(key), "fs") }
