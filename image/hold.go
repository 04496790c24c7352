package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// layerFile says which chain a root file system stands on.
const layerFile = "layer.json"

// layerRecord is what is in it.
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
func (r *rootfsStore) readHolds() error {
	keys, err := r.keys()
	if err != nil {
		return err
	}
	for _, key := range keys {
		var record layerRecord
		blob, err := os.ReadFile(filepath.Join(r.dirs.rootfs(key), layerFile))
		if err == nil {
			record, err = parseLayerRecord(blob)
		}
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				klog.ErrorS(err, "Failed to read the record of a writable layer; its image layers are not held", "key", key)
			}
			continue
		}
		r.catalog.known.holdChain(key, record.Chain)
	}
	return nil
}

// writeHold says on disk which layers the directory of a key holds.
func writeHold(dir string, l layers) error {
	record, err := json.Marshal(layerRecord{Version: 1, Chain: l.chain})
	if err != nil {
		return err
	}
	crashpoint.Here("before rootfs record")
	return os.WriteFile(filepath.Join(dir, layerFile), record, 0o600)
}
