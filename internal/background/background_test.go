package background

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestJoinSharesWorkThatOutlivesItsCaller(t *testing.T) {
	g := New()
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
		_, err := Join(ctx, g, "key", time.Minute, work)
		first <- err
	}()
	<-started
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatalf("the caller that left got %v", err)
	}
	second := make(chan error, 1)
	go func() {
		v, err := Join(context.Background(), g, "key", time.Minute, work)
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

// TestWorkMayPanic in every way that it can be run, and ends no process.
func TestWorkMayPanic(t *testing.T) {
	g := New()
	oops := func(context.Context) (int, error) { panic("oops") }
	_, err := Do(context.Background(), g, "do", time.Minute, oops)
	_, jerr := Join(context.Background(), g, "join", time.Minute, oops)
	for _, err := range []error{err, jerr} {
		if !errors.Is(err, errPanicked) || !strings.Contains(err.Error(), "oops") {
			t.Errorf("err = %v", err)
		}
	}
	g.Go("go", func(context.Context) { panic("oops") })
	if err := attempt(context.Background(), time.Minute, func(context.Context) error { panic("oops") }); err == nil {
		t.Error("an attempt that panicked counts as success")
	}
	if err := g.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestCloseEndsWorkAndWaitsForIt(t *testing.T) {
	g := New()
	begun := make(chan struct{})
	release := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		_, err := Join(context.Background(), g, "slow", time.Minute, func(ctx context.Context) (int, error) {
			close(begun)
			<-ctx.Done()
			<-release
			return 0, context.Cause(ctx)
		})
		ended <- err
	}()
	<-begun
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := g.Close(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "slow") {
		t.Errorf("closed while work runs: %v", err)
	}
	close(release)
	if err := g.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the work ended with %v", err)
	}
	if _, err := Do(context.Background(), g, "late", time.Minute, func(context.Context) (int, error) { return 1, nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("work after the end: %v", err)
	}
}

func TestRetryEndsWithSuccess(t *testing.T) {
	g := New()
	done := make(chan int, 1)
	n := 0
	g.Retry("twice", time.Minute, func(context.Context) error {
		if n++; n < 2 {
			return errors.New("not yet")
		}
		done <- n
		return nil
	})
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not tried a second time")
	}
	if err := g.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
