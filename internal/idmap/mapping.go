package idmap

import (
	"math"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Mapping is a set of ranges for user ids and one for group ids.
type Mapping struct {
	UIDs []specs.LinuxIDMapping `json:"uids,omitempty"`
	GIDs []specs.LinuxIDMapping `json:"gids,omitempty"`
}

// IsZero tells whether there is no mapping: ids are the node's.
func (m Mapping) IsZero() bool { return len(m.UIDs) == 0 && len(m.GIDs) == 0 }

// Identity maps all ids to themselves.
func Identity() Mapping {
	all := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: math.MaxUint32}}
	return Mapping{UIDs: all, GIDs: all}
}

// IsIdentity tells whether ids stay what they are.
func (m Mapping) IsIdentity() bool {
	same := func(ranges []specs.LinuxIDMapping) bool {
		return len(ranges) == 1 && ranges[0] == specs.LinuxIDMapping{Size: math.MaxUint32}
	}
	return same(m.UIDs) && same(m.GIDs)
}

// ToHost returns the ids by which the node's kernel knows a user and a group of
// the pod; ok is false when one of them is not mapped. Without a mapping they are
// the same.
func (m Mapping) ToHost(uid, gid uint32) (hostUID, hostGID uint32, ok bool) {
	if m.IsZero() {
		return uid, gid, true
	}
	hostUID, okUID := toHost(m.UIDs, uid)
	hostGID, okGID := toHost(m.GIDs, gid)
	return hostUID, hostGID, okUID && okGID
}

// ToContainer is the way back: the ids by which the pod knows a user and a group of
// the node.
func (m Mapping) ToContainer(uid, gid uint32) (podUID, podGID uint32, ok bool) {
	if m.IsZero() {
		return uid, gid, true
	}
	podUID, okUID := toHost(inverse(m.UIDs), uid)
	podGID, okGID := toHost(inverse(m.GIDs), gid)
	return podUID, podGID, okUID && okGID
}

func inverse(ranges []specs.LinuxIDMapping) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(ranges))
	for i, r := range ranges {
		out[i] = specs.LinuxIDMapping{ContainerID: r.HostID, HostID: r.ContainerID, Size: r.Size}
	}
	return out
}

func toHost(ranges []specs.LinuxIDMapping, id uint32) (uint32, bool) {
	for _, r := range ranges {
		if id >= r.ContainerID && id-r.ContainerID < r.Size {
			return r.HostID + (id - r.ContainerID), true
		}
	}
	return 0, false
}
