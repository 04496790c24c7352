// Package inroot follows paths of a container by the links of its image, as the
// container would: its root file system is "/", and nothing above it is reached.
//
// It owns no files and keeps no state. The root file system must not change
// meanwhile, so that it is for those of containers that do not run yet.
package inroot

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links are followed, as in the kernel.
const maxLinks = 40

// Place returns where an absolute path leads in the root file system at root, on which
// other file systems are mounted at the given places: what the image has there is not
// seen, and what they have is not known, so that no link is followed in them. A path
// that leads in a circle, or is too long, is returned as it is.
func Place(root string, mounted []string, name string) string {
	name = path.Clean("/" + name)
	at, pending, links := "/", split(name), 0
	for len(pending) > 0 && len(at) < unix.PathMax {
		next := pending[0]
		pending = pending[1:]
		if next == ".." {
			at = path.Dir(at)
			continue
		}
		if Covered(at, mounted) {
			at = path.Join(at, next)
			continue
		}
		link, err := os.Readlink(filepath.Join(root, at, next))
		if err != nil { // no link, or not there yet
			at = path.Join(at, next)
			continue
		}
		if links++; links > maxLinks {
			return name
		}
		if path.IsAbs(link) {
			at = "/"
		}
		pending = append(split(link), pending...)
	}
	if len(pending) > 0 {
		return name
	}
	return at
}

func split(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." })
}

// Covered reports whether a place is one of those mounted, or below one.
func Covered(place string, mounted []string) bool {
	return slices.ContainsFunc(mounted, func(m string) bool { return Within(place, m) })
}

// Within reports whether a clean absolute path is dir or below it.
func Within(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}
