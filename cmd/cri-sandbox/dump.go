package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// dumpOnSignal writes to the log, at each SIGUSR1 until ctx ends, how much the
// daemon consists of and where its goroutines are. Numbers that grow without more
// pods are a leak; a stack that many share says of what. The counts are taken
// after a collection, so that two of them can be compared.
func dumpOnSignal(ctx context.Context) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	go func() {
		defer signal.Stop(asked)
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
				dump()
			}
		}
	}()
}

func dump() {
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		klog.ErrorS(err, "Failed to count descriptors")
	}
	var stacks strings.Builder
	// Form 1 counts equal stacks and prints no arguments.
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 1); err != nil {
		klog.ErrorS(err, "Failed to list goroutines")
	}
	klog.InfoS("Goroutines", "stacks", stacks.String())
	klog.InfoS("Daemon", "goroutines", runtime.NumGoroutine(), "descriptors", len(descriptors), "heapBytes", mem.HeapAlloc, "sysBytes", mem.Sys)
}
