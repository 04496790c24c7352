package network

import (
	"context"
	"errors"
	"testing"
)

func TestGateStopsACollectionForAPod(t *testing.T) {
	var g gate
	ctx, _, done, ok := g.collect(t.Context())
	if !ok {
		t.Fatal("an idle gate does not let collect")
	}
	if _, _, _, ok := g.collect(t.Context()); ok {
		t.Fatal("two collections at a time")
	}
	attached := make(chan error, 1)
	go func() { attached <- g.attach(context.Background(), "a") }()
	<-ctx.Done() // the pod stops the collection,
	select {
	case <-attached:
		t.Fatal("attached while plugins collect")
	default:
	}
	done() // and waits for its end
	if err := <-attached; err != nil {
		t.Fatal(err)
	}
	if _, _, _, ok := g.collect(t.Context()); ok {
		t.Fatal("collecting while a pod is attached")
	}
	g.attached("a", true)

	_, live, done, ok := g.collect(t.Context())
	if _, has := live["a"]; !ok || !has {
		t.Errorf("live pods are %v, %v", live, ok)
	}
	done()
	g.detached("a")
	if live := g.pods(); len(live) != 0 {
		t.Errorf("live pods are %v", live)
	}
}

func TestGateWaitsOnlyAsLongAsTheCaller(t *testing.T) {
	var g gate
	_, _, done, _ := g.collect(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.attach(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	done()
	if live := g.pods(); len(live) != 0 {
		t.Errorf("live pods are %v", live)
	}
	if _, _, done, ok := g.collect(t.Context()); !ok {
		t.Error("the pod that went away still blocks")
	} else {
		done()
	}
}

func TestGateForgetsAPodThatFailed(t *testing.T) {
	var g gate
	if err := g.attach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	g.attached("a", false)
	if live := g.pods(); len(live) != 0 {
		t.Errorf("live pods are %v", live)
	}
}
