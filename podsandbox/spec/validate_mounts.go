package spec

import (
	"path"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func mountDestinations(r containerRequest) error {
	taken := map[string]bool{}
	for _, m := range r.GetMounts() {
		if err := checkAbs("mount destination", m.GetContainerPath()); err != nil {
			return err
		}
		dst := path.Clean(m.GetContainerPath())
		switch {
		case dst == "/":
			return invalidf("mount destination %q would hide the container's image", m.GetContainerPath())
		case taken[dst]:
			return invalidf("mount destination %s is given twice", dst)
		}
		taken[dst] = true
	}
	return nil
}

func mountSources(r containerRequest) error {
	for _, m := range r.GetMounts() {
		if m.GetImage() != nil {
			if m.GetHostPath() != "" {
				return invalidf("mount %s has a host path and an image; set one of them", m.GetContainerPath())
			}
			continue
		}
		// The kubelet sends an image sub-path with every volume that has a subPath;
		// of one that is no image the source is below it already.
		if err := checkAbs("source of mount "+m.GetContainerPath(), m.GetHostPath()); err != nil {
			return err
		}
	}
	return nil
}

// extraMountOptions are those that can only take rights away. An engine may read more
// from this list, some of which would change how it serves the mount.
var extraMountOptions = []string{"noexec", "nosuid", "nodev"}

func mountOptions(r containerRequest) error {
	for _, m := range r.GetMounts() {
		if _, known := runtimeapi.MountPropagation_name[int32(m.GetPropagation())]; !known {
			return invalidf("mount %s has the unknown propagation %d", m.GetContainerPath(), m.GetPropagation())
		}
		for _, o := range m.GetMountOptions() {
			if !slices.Contains(extraMountOptions, o) {
				return invalidf("mount %s has the option %q; known are %s", m.GetContainerPath(), o, strings.Join(extraMountOptions, ", "))
			}
		}
		if m.GetRecursiveReadOnly() && (!m.GetReadonly() || m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE) {
			return invalidf("mount %s is recursively read-only; it must be readonly with private propagation, too", m.GetContainerPath())
		}
	}
	return nil
}

// mountImages keeps sub-paths below the root of the image; links in it are looked
// at when it is mounted. The kubelet maps ids as the pod does, or not at all.
func mountImages(r containerRequest) error {
	for _, m := range r.GetMounts() {
		if m.GetImage() == nil {
			continue
		}
		dst, sub := m.GetContainerPath(), m.GetImageSubPath()
		switch {
		case m.GetImage().GetImage() == "":
			return invalidf("mount %s is of an image without a name", dst)
		case !m.GetReadonly():
			return invalidf("mount %s is of an image, which is read-only, and does not say readonly", dst)
		case path.IsAbs(sub) || slices.Contains(strings.Split(sub, "/"), ".."):
			return invalidf("sub-path %q of mount %s must be relative to the image's root and below it", sub, dst)
		case strings.ContainsFunc(sub, isControl):
			return invalidf("sub-path %q of mount %s must not contain control characters", sub, dst)
		}
		pod := r.pod.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
		if len(m.GetUidMappings())+len(m.GetGidMappings()) > 0 &&
			(!sameRanges(m.GetUidMappings(), pod.GetUids()) || !sameRanges(m.GetGidMappings(), pod.GetGids())) {
			return invalidf("mount %s of an image has other id mappings than its pod", dst)
		}
	}
	return nil
}

func mountIDMappings(r containerRequest) error {
	for _, m := range r.GetMounts() {
		if (len(m.GetUidMappings()) == 0) != (len(m.GetGidMappings()) == 0) {
			return invalidf("mount %s maps user ids or group ids alone; send both", m.GetContainerPath())
		}
		for _, one := range slices.Concat(m.GetUidMappings(), m.GetGidMappings()) {
			if err := checkRange("mount "+m.GetContainerPath(), one); err != nil {
				return err
			}
		}
	}
	return nil
}
