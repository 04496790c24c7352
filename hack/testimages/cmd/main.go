// Command cmd builds the test images and pushes them to a registry; it prints
// their references.
package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

func main() {
	registry := flag.String("registry", "127.0.0.1:5000", "`host:port` to push to, over plain HTTP")
	flag.Parse()
	refs, err := testimages.Push(context.Background(), *registry)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testimages:", err)
		os.Exit(1)
	}
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		fmt.Println(refs[name])
	}
}
