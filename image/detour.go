package image

import (
	"archive/tar"
	"path/filepath"

	continuity "github.com/containerd/continuity/fs"
)

// detour is by how much a directory's path is longer than its name in the archive.
type detour struct {
	name  string
	bytes int
}

// detour is by how much the path of an entry is longer than its name, because of
// symbolic links in it. The library remembers the path, and a short name can stand
// for a path of 4 KiB.
func (e *entries) detour(h *tar.Header) int {
	parent := filepath.Dir(filepath.Clean(h.Name))
	if e.links && e.last.name != parent {
		e.last = detour{name: parent}
		// An error is the library's to meet.
		if path, err := continuity.RootPath(e.root, parent); err == nil {
			e.last.bytes = max(0, len(path)-len(e.root)-1-len(parent))
		}
	}
	bytes := e.last.bytes
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeSymlink, tar.TypeLink:
		e.links = true
		fallthrough
	default: // may change where the same parent leads
		e.last = detour{}
	}
	return bytes
}
