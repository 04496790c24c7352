package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/regular"
)

// maxCertificates bounds a file of certificates or of a key, in bytes. All that
// the world's authorities have fits into 1 MiB.
const maxCertificates = 8 << 20

// certificates are the files that a hosts.toml names.
func (f hostsFile) certificates() []string {
	var names []string
	for _, s := range append(valuesOf(f.Host), f.hostSettings) {
		names = append(append(names, textsIn(s.CA)...), textsIn(s.Client)...)
	}
	return names
}

func valuesOf(hosts map[string]hostSettings) []hostSettings {
	var all []hostSettings
	for _, s := range hosts {
		all = append(all, s)
	}
	return all
}

// textsIn finds the texts in a text or in nested lists of them.
func textsIn(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, textsIn(e)...)
		}
		return all
	}
	return nil
}

// dockerCertificates are the files that the library reads in a directory without a
// hosts.toml.
func dockerCertificates(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if slices.Contains([]string{".crt", ".cert", ".key"}, filepath.Ext(e.Name())) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// checkCertificates refuses what the library would wait for, or read without end.
// What it cannot read for another reason it tells itself. Errors are
// errdefs.ErrFailedPrecondition.
func checkCertificates(dir string, names []string) error {
	for _, name := range names {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		err := regular.Check(name, maxCertificates)
		if errors.Is(err, regular.ErrNotRegular) || errors.Is(err, regular.ErrTooLarge) {
			return fmt.Errorf("certificate of a registry: %w: %w", err, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}
