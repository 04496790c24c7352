package main

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// handlerFeatures tries what depends on the kernel and on the file system of a
// folder, in which root file systems lie.
func handlerFeatures(dir string) *runtimeapi.RuntimeHandlerFeatures {
	f := &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true}
	if err := idmap.ProbeReadOnly(dir); err != nil {
		klog.InfoS("Recursively read-only mounts are not possible here", "why", err)
		f.RecursiveReadOnlyMounts = false
	}
	if err := idmap.Probe(dir); err != nil {
		klog.InfoS("User namespaces of pods are not possible here", "why", err)
		f.UserNamespaces = false
	}
	return f
}
