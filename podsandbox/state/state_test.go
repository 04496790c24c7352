package state

import (
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestBroadcasterEndsASubscriberThatLags(t *testing.T) {
	b := newBroadcaster()
	slow, err := b.subscribe()
	if err != nil {
		t.Fatal(err)
	}
	quick, err := b.subscribe()
	if err != nil {
		t.Fatal(err)
	}
	for i := range eventBacklog + 1 {
		b.publish(func() *runtimeapi.ContainerEventResponse {
			return &runtimeapi.ContainerEventResponse{CreatedAt: int64(i)}
		})
		if ev := <-quick; ev.CreatedAt != int64(i) {
			t.Fatalf("event %d is %d", i, ev.CreatedAt)
		}
	}
	n := 0
	for range slow {
		n++
	}
	if n != eventBacklog {
		t.Errorf("the slow one got %d events before its stream ended", n)
	}
}

func TestContainerStatusNamesStopSignals(t *testing.T) {
	for sig, want := range map[int]runtimeapi.Signal{
		int(unix.SIGTERM): runtimeapi.Signal_SIGNAL_SIGTERM,
		int(unix.SIGUSR1): runtimeapi.Signal_SIGNAL_SIGUSR1,
		34:                runtimeapi.Signal_SIGNAL_SIGRTMIN,
		37:                runtimeapi.Signal_SIGNAL_SIGRTMINPLUS3,
		60:                runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS4,
		64:                runtimeapi.Signal_SIGNAL_SIGRTMAX,
		0:                 runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT,
	} {
		if got := stopSignal(sig); got != want {
			t.Errorf("signal %d is %v, want %v", sig, got, want)
		}
	}
}

func TestFindTakesAnUnambiguousPrefix(t *testing.T) {
	all := map[string]int{"abc1": 1, "abd2": 2}
	if v, err := find(all, "pod", "abc"); err != nil || v != 1 {
		t.Errorf("abc: %d, %v", v, err)
	}
	if _, err := find(all, "pod", "ab"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("ab: %v", err)
	}
	if _, err := find(all, "pod", "x"); !errdefs.IsNotFound(err) {
		t.Errorf("x: %v", err)
	}
	if _, err := find(all, "pod", ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("empty: %v", err)
	}
}
