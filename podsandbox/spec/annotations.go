package spec

import "strings"

// Names that engines read. The values are set here, whatever a request says.
const (
	annotationType             = "io.kubernetes.cri.container-type"
	annotationName             = "io.kubernetes.cri.container-name"
	annotationImage            = "io.kubernetes.cri.image-name"
	annotationSandboxID        = "io.kubernetes.cri.sandbox-id"
	annotationSandboxName      = "io.kubernetes.cri.sandbox-name"
	annotationSandboxNamespace = "io.kubernetes.cri.sandbox-namespace"
	annotationSandboxUID       = "io.kubernetes.cri.sandbox-uid"
)

// runtimePrefixes are names that container runtimes set for what they start. They are
// dropped from what users send; the status still shows them. An engine drops what else
// it obeys.
var runtimePrefixes = []string{"io.kubernetes.cri.", "io.kubernetes.cri-o."}

func annotations(in Input) map[string]string {
	out := map[string]string{}
next:
	for key, value := range in.Container.GetAnnotations() {
		for _, prefix := range runtimePrefixes {
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
