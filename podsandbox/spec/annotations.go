package spec

import "strings"

// Names that the engine reads. The values are set here, whatever a request says.
const (
	annotationType             = "io.kubernetes.cri.container-type"
	annotationName             = "io.kubernetes.cri.container-name"
	annotationImage            = "io.kubernetes.cri.image-name"
	annotationSandboxID        = "io.kubernetes.cri.sandbox-id"
	annotationSandboxName      = "io.kubernetes.cri.sandbox-name"
	annotationSandboxNamespace = "io.kubernetes.cri.sandbox-namespace"
	annotationSandboxUID       = "io.kubernetes.cri.sandbox-uid"
)

// enginePrefixes are what the engine obeys: a user who could set them would choose
// the root file system, or which sandbox to join. They are dropped from the spec;
// the status still shows them as sent.
var enginePrefixes = []string{"dev.gvisor.", "io.kubernetes.cri.", "io.kubernetes.cri-o."}

func annotations(in Input) map[string]string {
	out := map[string]string{}
next:
	for key, value := range in.Container.GetAnnotations() {
		for _, prefix := range enginePrefixes {
			if strings.HasPrefix(key, prefix) {
				continue next
			}
		}
		out[key] = value
	}
	image := in.Container.GetImage().GetUserSpecifiedImage()
	if image == "" {
		image = in.Container.GetImage().GetImage()
	}
	out[annotationType] = "container"
	out[annotationName] = in.Container.GetMetadata().GetName()
	out[annotationImage] = image
	out[annotationSandboxID] = in.SandboxID
	out[annotationSandboxName] = in.Pod.GetMetadata().GetName()
	out[annotationSandboxNamespace] = in.Pod.GetMetadata().GetNamespace()
	out[annotationSandboxUID] = in.Pod.GetMetadata().GetUid()
	return out
}
