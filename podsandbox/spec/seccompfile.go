package spec

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/cri-sandbox/cri-sandbox/internal/regular"
)

// maxProfile bounds a seccomp profile, in bytes. The default one has about 12 KiB.
const maxProfile = 1 << 20

// readSeccomp reads a profile of the node. A relative name stays below root.
func readSeccomp(root, ref string) ([]byte, error) {
	name := ref
	if !filepath.IsAbs(name) {
		if root == "" || !filepath.IsLocal(name) {
			return nil, invalidf("seccomp profile %q must be an absolute path, or one below the directory of profiles", ref)
		}
		name = filepath.Join(root, name)
	}
	data, err := regular.Read(name, maxProfile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalidf("seccomp profile %s is not on this node", name)
	}
	if err != nil {
		return nil, invalidf("seccomp profile cannot be read: %v", err)
	}
	return data, nil
}
