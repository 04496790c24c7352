package spec

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxProfile bounds a seccomp profile, in bytes. The default one has about 12 KiB.
const maxProfile = 1 << 20

// readSeccomp reads a profile of the node. A relative name stays below root.
func readSeccomp(root, ref string) ([]byte, error) {
	name := ref
	if !filepath.IsAbs(name) {
		if root == "" || !filepath.IsLocal(name) {
			return nil, invalidf("seccomp profile %q must be an absolute path, or one below the folder of profiles", ref)
		}
		name = filepath.Join(root, name)
	}
	// A FIFO must not hold the request up.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalidf("seccomp profile %s is not on this node", name)
	}
	if err != nil {
		return nil, invalidf("seccomp profile cannot be opened: %v", err)
	}
	defer f.Close()
	return readRegular(f, name, maxProfile)
}
