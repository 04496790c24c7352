package cri

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func podOf(size int) *runtimeapi.PodSandbox {
	return &runtimeapi.PodSandbox{Id: strings.Repeat("i", size)}
}

func TestSendBatchesSendsEveryItemOnceAndFits(t *testing.T) {
	const big = maxBatchBytes + 5
	for name, sizes := range map[string][]int{
		"none":            {},
		"one":             {10},
		"all in one":      {10, 20, 30},
		"a message each":  {maxBatchBytes / 2, maxBatchBytes / 2, maxBatchBytes / 2},
		"too large alone": {10, big, 10, 10, big},
		"many small":      make([]int, 40000),
	} {
		t.Run(name, func(t *testing.T) {
			var items, got []*runtimeapi.PodSandbox
			for _, n := range sizes {
				if n == 0 {
					n = 100
				}
				items = append(items, podOf(n))
			}
			messages := 0
			err := sendBatches(items, func(batch []*runtimeapi.PodSandbox) error {
				messages++
				if len(batch) == 0 {
					t.Error("a message without an item")
				}
				size := 0
				for _, b := range batch {
					size += proto.Size(b)
				}
				if size > maxBatchBytes && len(batch) > 1 {
					t.Errorf("%d items of %d bytes in one message", len(batch), size)
				}
				got = append(got, batch...)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(items) {
				t.Fatalf("%d items of %d arrived", len(got), len(items))
			}
			for i := range items {
				if got[i] != items[i] {
					t.Fatalf("item %d is another one", i)
				}
			}
			if name == "all in one" && messages != 1 || name == "many small" && messages > 10 {
				t.Errorf("%d messages for %d items", messages, len(items))
			}
		})
	}
}

func TestSendBatchesEndsWithTheErrorOfItsReader(t *testing.T) {
	gone := errors.New("gone")
	sent := 0
	err := sendBatches([]*runtimeapi.PodSandbox{podOf(maxBatchBytes), podOf(maxBatchBytes)}, func([]*runtimeapi.PodSandbox) error {
		sent++
		return gone
	})
	if !errors.Is(err, gone) || sent != 1 {
		t.Errorf("error %v after %d messages", err, sent)
	}
}
