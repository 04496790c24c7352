package image

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// A FIFO of an image connects processes of one container, so each container needs its
// own. To make them without a walk through its files, the names of those that a layer
// has are noted when it is unpacked, in a file beside the directory of the layer, which
// goes with it.

// fifoList is that file.
const fifoList = "fifos.json"

// maxFIFOs is how many of them are noted of one layer, and returned for one image.
const maxFIFOs = 1000

// noteFIFO collects the FIFOs of a layer.
func (e *entries) noteFIFO(h *tar.Header) {
	if h.Typeflag == tar.TypeFifo && len(e.fifos) < maxFIFOs {
		e.fifos = append(e.fifos, path.Clean("/"+h.Name))
	}
}

// writeFIFOs notes them beside the layer's directory.
func writeFIFOs(layer string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	b, err := json.Marshal(names)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(layer), fifoList), b, 0o600); err != nil {
		return fmt.Errorf("note FIFOs of layer: %w", err)
	}
	return nil
}

// FIFOs names the FIFOs that an image's layers have, the first thousand. In the root
// file system there may be something else by these names, or nothing, as layers hide
// what is below them. Layers unpacked by versions before this one name none.
func (s *Store) FIFOs(img Image) []string {
	var all []string
	seen := map[string]bool{}
	for _, layer := range img.layers.lower {
		b, err := os.ReadFile(filepath.Join(s.dirs.snapshots(), filepath.Dir(layer), fifoList))
		var names []string
		if err != nil || json.Unmarshal(b, &names) != nil {
			continue // the layer has none
		}
		for _, name := range names {
			if len(all) < maxFIFOs && !seen[name] {
				seen[name] = true
				all = append(all, name)
			}
		}
	}
	return all
}
