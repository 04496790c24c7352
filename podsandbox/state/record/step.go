package record

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// step names the write of v for package crashpoint: a status by the phase that
// it tells of. A type that is not known here is not on the list of the test,
// which then complains.
func step(v any) string {
	switch v := v.(type) {
	case PodMeta:
		return "record of pod request"
	case PodStatus:
		return "record of pod " + string(v.Phase)
	case ContainerMeta:
		return "record of container request"
	case *specs.Spec:
		return "record of container spec"
	case engine.Writes:
		return "record of container layers"
	case ContainerStatus:
		return "record of container " + string(v.Phase)
	}
	return fmt.Sprintf("record of %T", v)
}
