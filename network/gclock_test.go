package network

import (
	"context"
	"errors"
	"testing"
)

func TestGCLockStopsThePluginsForAPod(t *testing.T) {
	var l gcLock
	ctx, end, err := l.beginPlugins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan error, 1)
	go func() { began <- l.beginAttach(context.Background(), "a") }()
	<-ctx.Done() // the pod stops the plugins,
	if cause := context.Cause(ctx); !errors.Is(cause, errPreempted) {
		t.Errorf("they were stopped by %v", cause)
	}
	select {
	case <-began:
		t.Fatal("attached while plugins collect")
	default:
	}
	end() // and waits for their end
	if err := <-began; err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.beginPlugins(t.Context()); !errors.Is(err, errPreempted) {
		t.Fatalf("plugins collect while a pod is attached: %v", err)
	}
	l.endAttach("a", true)
	if _, has := l.pods()["a"]; !has {
		t.Errorf("attached pods are %v", l.pods())
	}
	if _, end, err = l.beginPlugins(t.Context()); err != nil {
		t.Errorf("after the pod was attached: %v", err)
	}
	end()
	l.detached("a")
	if pods := l.pods(); len(pods) != 0 {
		t.Errorf("attached pods are %v", pods)
	}
}

func TestGCLockLetsAttachWaitOnlyAsLongAsItsCaller(t *testing.T) {
	var l gcLock
	_, end, err := l.beginPlugins(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.beginAttach(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	end()
	if pods := l.pods(); len(pods) != 0 {
		t.Errorf("attached pods are %v", pods)
	}
	if _, end, err = l.beginPlugins(t.Context()); err != nil {
		t.Errorf("the pod that went away still blocks: %v", err)
	}
	end()
}

func TestGCLockForgetsAPodThatFailed(t *testing.T) {
	var l gcLock
	if err := l.beginAttach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	l.endAttach("a", false)
	if pods := l.pods(); len(pods) != 0 {
		t.Errorf("attached pods are %v", pods)
	}
}

func TestGCLockTakesOneGCAtATime(t *testing.T) {
	var l gcLock
	end, err := l.beginGC()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.beginGC(); !errors.Is(err, errCollecting) {
		t.Errorf("a second one: %v", err)
	}
	end()
	if end, err = l.beginGC(); err != nil {
		t.Fatal(err)
	}
	end()
}
