package image

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// programLike fills in bytes that compress about as well as programs do.
func programLike(p []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i+8 <= len(p); i += 8 {
		v := r.Uint64()
		if i%32 != 0 {
			v &= 0xffff
		}
		binary.LittleEndian.PutUint64(p[i:], v)
	}
}

// BenchmarkPull pulls an image of three layers with 3000 files and 180 MB,
// unpacked, from loopback.
func BenchmarkPull(b *testing.B) {
	host := newRegistry(b, nil)
	var layers []*rawLayer
	const perLayer, size = 1000, 60 << 10
	for l := range 3 {
		var entries []func(*tar.Writer)
		for i := range perLayer {
			content := make([]byte, size)
			programLike(content, uint64(l*perLayer+i))
			entries = append(entries, entryBytes(tar.Header{Name: fmt.Sprintf("l%d/d%d/f%d", l, i%50, i), Mode: 0o644}, content))
		}
		layers = append(layers, gzipLayer(entries...))
	}
	push(b, host+"/big", buildImage(b, v1.Config{}, layers...))
	s := newStore(b, Options{})
	b.SetBytes(3 * perLayer * size)
	for b.Loop() {
		mustPull(b, s, host+"/big")
		b.StopTimer()
		if err := s.Remove(b.Context(), host+"/big"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkPullSmall pulls an image of one small layer.
func BenchmarkPullSmall(b *testing.B) {
	host := newRegistry(b, nil)
	pushSmall(b, host+"/small", "x")
	s := newStore(b, Options{})
	for b.Loop() {
		mustPull(b, s, host+"/small")
		b.StopTimer()
		if err := s.Remove(b.Context(), host+"/small"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkOpen opens a store of 50 images with five layers each.
func BenchmarkOpen(b *testing.B) {
	host := newRegistry(b, nil)
	s := newStore(b, Options{})
	for i := range 50 {
		var layers []*rawLayer
		for l := range 5 {
			layers = append(layers, gzipLayer(file(fmt.Sprintf("f%d-%d", i, l), "x")))
		}
		ref := fmt.Sprintf("%s/app%d", host, i)
		push(b, ref, buildImage(b, v1.Config{}, layers...))
		mustPull(b, s, ref)
	}
	for b.Loop() {
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		s = newStore(b, s.opts)
	}
}
