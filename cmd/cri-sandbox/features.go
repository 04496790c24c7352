package main

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// handlerFeatures is what the engine of each runtime handler can on this node: it tries
// what depends on the kernel and on the file system of a directory, in which root file
// systems lie.
func handlerFeatures(handlers engine.Handlers, dir string) map[string]*runtimeapi.RuntimeHandlerFeatures {
	readOnly, mapped := idmap.ProbeReadOnly(dir), idmap.Probe(dir)
	if readOnly != nil {
		klog.InfoS("Recursively read-only mounts are not possible here", "why", readOnly)
	}
	if mapped != nil {
		klog.InfoS("User namespaces of pods are not possible here", "why", mapped)
	}
	features := map[string]*runtimeapi.RuntimeHandlerFeatures{}
	for name, e := range handlers {
		can := e.Capabilities()
		features[name] = &runtimeapi.RuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: can.RecursiveReadOnlyMounts && readOnly == nil,
			UserNamespaces:          can.UserNamespaces && mapped == nil,
		}
	}
	return features
}
