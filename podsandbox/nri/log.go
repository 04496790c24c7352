package nri

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/log"
	"k8s.io/klog/v2"
)

// useLog gives the library's lines to the daemon's log.
func useLog() { log.Set(logger{}) }

type logger struct{}

func (logger) Debugf(_ context.Context, format string, args ...any) {
	klog.V(4).InfoS("NRI", "msg", fmt.Sprintf(format, args...))
}

func (logger) Infof(_ context.Context, format string, args ...any) {
	klog.V(2).InfoS("NRI", "msg", fmt.Sprintf(format, args...))
}

func (logger) Warnf(_ context.Context, format string, args ...any) {
	klog.InfoS("NRI", "warning", fmt.Sprintf(format, args...))
}

func (logger) Errorf(_ context.Context, format string, args ...any) {
	klog.ErrorS(nil, "NRI", "msg", fmt.Sprintf(format, args...))
}
