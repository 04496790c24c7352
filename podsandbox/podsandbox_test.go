package podsandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/cgroup"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

func TestJoinSharesWorkAndOutlivesItsCaller(t *testing.T) {
	m := &Manager{}
	started, release := make(chan struct{}), make(chan struct{})
	runs := 0
	work := func(ctx context.Context) (int, error) {
		runs++
		close(started)
		<-release
		return 7, ctx.Err()
	}
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan error, 1)
	go func() {
		_, err := join(ctx, m, "key", time.Minute, work)
		first <- err
	}()
	<-started
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatalf("the caller that left got %v", err)
	}
	second := make(chan error, 1)
	go func() {
		v, err := join(context.Background(), m, "key", time.Minute, work)
		if v != 7 {
			err = fmt.Errorf("got %d, %w", v, err)
		}
		second <- err
	}()
	// The second must have joined before the work ends.
	time.Sleep(50 * time.Millisecond)
	close(release)
	if err := <-second; err != nil || runs != 1 {
		t.Errorf("the second caller got %v after %d runs", err, runs)
	}
}

func TestAPanicOfAnOperationIsAnError(t *testing.T) {
	_, err := join(context.Background(), &Manager{}, "key", time.Minute, func(context.Context) (int, error) { panic("oops") })
	if err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("err = %v", err)
	}
}

func TestASubscriberThatLagsIsToldSo(t *testing.T) {
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

func TestOutputIsSharedFairly(t *testing.T) {
	for name, c := range map[string]struct{ a, b, wantA, wantB int }{
		"both fit":   {10, 20, 10, 20},
		"a is large": {maxExecOutput + 5, 100, maxExecOutput - 100, 100},
		"b is large": {100, maxExecOutput + 5, 100, maxExecOutput - 100},
		"both large": {maxExecOutput, maxExecOutput, maxExecOutput / 2, maxExecOutput / 2},
	} {
		var a, b output
		_, _ = a.Write(make([]byte, c.a))
		_, _ = b.Write(make([]byte, c.b))
		share(&a, &b)
		if len(a.kept) != c.wantA || len(b.kept) != c.wantB {
			t.Errorf("%s: %d and %d, want %d and %d", name, len(a.kept), len(b.kept), c.wantA, c.wantB)
		}
		if marked := bytes.HasSuffix(a.bytes(), []byte(truncationMark)); marked != (c.wantA < c.a) {
			t.Errorf("%s: marked %v", name, marked)
		}
	}
}

func TestStopSignalsHaveTheirNames(t *testing.T) {
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

func TestRatesComeFromTwoSamples(t *testing.T) {
	now := time.Now()
	a := &podSample{time: now, group: cgroup.Stats{CPU: time.Second}, use: map[string]engine.Usage{"x": {CPU: time.Second}}}
	b := &podSample{time: now.Add(2 * time.Second), group: cgroup.Stats{CPU: 2 * time.Second},
		use: map[string]engine.Usage{"x": {CPU: 4 * time.Second}, "new": {CPU: time.Second}}}
	got := rates(a, b)
	if got[""] != 5e8 || got["x"] != 15e8 || got["new"] != 0 {
		t.Errorf("rates = %v", got)
	}
	if r := nanocores(2*time.Second, time.Second, time.Second); r != 0 {
		t.Errorf("a counter that fell gives %d", r)
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
