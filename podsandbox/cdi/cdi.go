// Package cdi owns the Container Device Interface: it finds what vendors say of
// their devices in the directories of CDI specifications, and applies it to a
// container's spec. It does not know what a sandbox can give; who calls it does.
//
// The directories are read at each use, and only for a container that names a device:
// the files are small and few, and a watch could lag behind the device plugin that
// wrote one a moment ago.
package cdi

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// DefaultSpecDirs are where vendors put their specifications; a later one wins.
func DefaultSpecDirs() []string { return slices.Clone(cdi.DefaultSpecDirs) }

// Devices finds devices by their names. It has no state.
type Devices struct {
	// SpecDirs are the directories of specifications. One that does not exist is empty.
	SpecDirs []string
}

// Requested lists the devices that a container names, each once, in the order of
// the request: in the field, and in the annotations that came before the field.
// A name that is not VENDOR/CLASS=NAME is errdefs.ErrInvalidArgument.
func Requested(c *runtimeapi.ContainerConfig) ([]string, error) {
	var names []string
	for _, d := range c.GetCDIDevices() {
		names = append(names, d.GetName())
	}
	for _, key := range slices.Sorted(maps.Keys(c.GetAnnotations())) {
		if strings.HasPrefix(key, cdi.AnnotationPrefix) {
			names = append(names, strings.Split(c.GetAnnotations()[key], ",")...)
		}
	}
	var out []string
	for _, name := range names {
		if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
			return nil, fmt.Errorf("CDI device %q is not of the form VENDOR/CLASS=NAME: %w: %w", name, err, errdefs.ErrInvalidArgument)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// Inject applies the edits of the named devices to s. Before that, check is asked
// for each device, with a spec that has its edits alone; its error is returned
// under the device's name, and s is as it was.
//
// Errors: errdefs.ErrNotFound for a name that no specification has, with the
// directories and the files there that could not be read; ErrFailedPrecondition for
// edits that this host does not fit, such as a device node that it does not have,
// and for a specification that is no regular file.
func (d Devices) Inject(s *specs.Spec, names []string, check func(edits *specs.Spec) error) error {
	if len(names) == 0 {
		return nil
	}
	if err := checkFiles(d.SpecDirs); err != nil {
		return err
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(d.SpecDirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return fmt.Errorf("read CDI specifications: %w", err)
	}
	for _, name := range names {
		device := cache.GetDevice(name)
		if device == nil {
			return fmt.Errorf("CDI device %s is in no specification in %s%s: %w", name, strings.Join(d.SpecDirs, ", "), unread(cache), errdefs.ErrNotFound)
		}
		edits := &specs.Spec{}
		if err := errors.Join(device.GetSpec().ApplyEdits(edits), device.ApplyEdits(edits)); err != nil {
			return fmt.Errorf("CDI device %s: %w: %w", name, err, errdefs.ErrFailedPrecondition)
		}
		if err := check(edits); err != nil {
			return fmt.Errorf("CDI device %s: %w", name, err)
		}
	}
	if _, err := cache.InjectDevices(s, names...); err != nil {
		return fmt.Errorf("apply CDI devices: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// unread says which files could not be read: the device may be in one of them.
func unread(cache *cdi.Cache) string {
	var b strings.Builder
	all := cache.GetErrors()
	for _, path := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "; %s: %v", path, errors.Join(all[path]...))
	}
	return b.String()
}
