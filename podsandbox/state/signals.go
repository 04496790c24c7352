package state

import (
	"fmt"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The real-time signals that programs see: the kernel's first two belong to the
// C library; signal(7).
const sigRTMin, sigRTMax = 34, 64

// stopSignal is CRI's name of a Linux signal number.
func stopSignal(sig int) runtimeapi.Signal {
	var name string
	switch {
	case sig == sigRTMin:
		name = "SIGRTMIN"
	case sig == sigRTMax:
		name = "SIGRTMAX"
	case sig > sigRTMin && sig <= sigRTMin+15:
		name = fmt.Sprintf("SIGRTMINPLUS%d", sig-sigRTMin)
	case sig > sigRTMin && sig < sigRTMax:
		name = fmt.Sprintf("SIGRTMAXMINUS%d", sigRTMax-sig)
	default:
		name = unix.SignalName(unix.Signal(sig))
	}
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+name])
}
