package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const pullRuns = 3

// measurePull pulls an image that is not there, several times.
func measurePull(ctx context.Context, o options, t *target) ([]result, error) {
	if o.pull == "" {
		return nil, fmt.Errorf("pull: no --pull: %w", errSkip)
	}
	spec := &runtimeapi.ImageSpec{Image: o.pull}
	var s series
	bytes := o.pullBytes
	for range pullRuns {
		if _, err := t.image.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
			return nil, fmt.Errorf("remove image: %w", err)
		}
		err := s.time(func() error {
			_, err := t.image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("pull image: %w", err)
		}
		st, err := t.image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
		if err != nil {
			return nil, fmt.Errorf("get image status: %w", err)
		}
		if o.pullBytes == 0 {
			bytes = int64(st.GetImage().GetSize())
		}
	}
	rate := float64(bytes) / (1 << 20) / (s.quantile(0.5) / 1000)
	r := single(fmt.Sprintf("pull, %d MiB unpacked", bytes>>20), "MiB/s", rate)
	r.N = pullRuns
	_, err := t.image.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: spec})
	return []result{r}, err
}

const (
	bigLayers    = 4
	bigFiles     = 400 // in a layer
	bigFileBytes = 128 << 10
)

// pushBigImage makes an image of bigLayers gzip layers, whose files compress about
// as programs do, and returns its reference and unpacked size in bytes.
func pushBigImage(ctx context.Context, registry string) (ref string, size int64, err error) {
	img := empty.Image
	rng := rand.New(rand.NewPCG(1, 2)) // the same image each time
	for l := range bigLayers {
		layer, err := bigLayer(rng, l)
		if err != nil {
			return "", 0, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return "", 0, fmt.Errorf("build image: %w", err)
		}
	}
	tag, err := name.NewTag(registry + "/bench/big:latest")
	if err != nil {
		return "", 0, fmt.Errorf("build image: %w", err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return "", 0, fmt.Errorf("build image: %w", err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", hostArch
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return "", 0, fmt.Errorf("build image: %w", err)
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return "", 0, fmt.Errorf("push %s: %w", tag, err)
	}
	return tag.String(), bigLayers * bigFiles * bigFileBytes, nil
}

func bigLayer(rng *rand.Rand, n int) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range bigFiles {
		h := &tar.Header{Name: fmt.Sprintf("opt/%d/%03d", n, i), Mode: 0o644, Size: bigFileBytes, ModTime: time.Unix(1, 0)}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("build layer: %w", err)
		}
		if _, err := w.Write(words(rng, bigFileBytes)); err != nil {
			return nil, fmt.Errorf("build layer: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("build layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		return nil, fmt.Errorf("build layer: %w", err)
	}
	return layer, nil
}

// words are bytes in which short runs come again, as instructions do.
func words(rng *rand.Rand, size int) []byte {
	dictionary := make([][]byte, 4096)
	for i := range dictionary {
		w := make([]byte, 3+rng.IntN(9))
		for j := range w {
			w[j] = byte(rng.Uint32())
		}
		dictionary[i] = w
	}
	out := make([]byte, 0, size+16)
	for len(out) < size {
		out = append(out, dictionary[rng.IntN(len(dictionary))]...)
	}
	return out[:size]
}
