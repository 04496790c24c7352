package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestImagesConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	writeFile(t, path, "[images]\npinned_images = ['busybox', 'registry.k8s.io/*', '*pause*']\nmax_unpacked_size = '3GiB'\nmax_layers = 7\n")
	cfg, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.validate(); err != nil {
		t.Error(err)
	}
	want := defaultImagesConfig().limits()
	want.UnpackedBytes, want.Layers = 3<<30, 7
	if got := cfg.Images.limits(); got != want || len(cfg.Images.PinnedImages) != 3 {
		t.Errorf("limits %+v, pinned %v", got, cfg.Images.PinnedImages)
	}
	if text, err := cfg.Images.MaxUnpackedSize.MarshalText(); err != nil || string(text) != "3GiB" {
		t.Errorf("written as %s, %v", text, err)
	}
	for _, bad := range []string{
		"max_unpacked_size = '0'", "max_unpacked_size = '-1GiB'", "max_unpacked_size = '9000000TiB'", "max_unpacked_size = 'much'",
		"max_unpacked_size = '1GB'", "max_files = 0", "max_layers = 0", "max_layers = 129",
		"pinned_images = ['a*b']", "pinned_images = ['*start']", "pinned_images = ['UPPER']", "pinned_images = ['']",
	} {
		writeFile(t, path, "[images]\n"+bad+"\n")
		cfg, err := loadConfig(path)
		if err == nil {
			err = cfg.validate()
		}
		if err == nil || !strings.Contains(err.Error(), "config") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
