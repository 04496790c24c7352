package image

import (
	"archive/tar"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func fifo(name string) func(*tar.Writer) {
	return entry(tar.Header{Name: name, Mode: 0o622, Typeflag: tar.TypeFifo}, "")
}

// The FIFOs of an image are known, also to the next daemon, and what knows them goes
// with the layers.
func TestFIFOsOfLayers(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	var many []func(*tar.Writer)
	for i := range 2 * maxFIFOs {
		many = append(many, fifo(fmt.Sprint("many/", i)))
	}
	push(t, host+"/many", buildImage(t, v1.Config{}, gzipLayer(many...), gzipLayer(fifo("top"))))
	push(t, host+"/none", buildImage(t, v1.Config{}, gzipLayer(file("a", "b"))))
	push(t, host+"/app", buildImage(t, v1.Config{},
		gzipLayer(dirEntry("run", 0o755), fifo("run/one"), fifo("./run//two"), fifo("run/gone"), file("file", "x")),
		plainLayer(file("run/.wh.gone", ""), fifo("three"), fifo("run/one"))))
	app, none, all := mustPull(t, s, host+"/app"), mustPull(t, s, host+"/none"), mustPull(t, s, host+"/many")
	check := func() {
		t.Helper()
		names := s.FIFOs(app)
		slices.Sort(names)
		if got := strings.Join(names, " "); got != "/run/gone /run/one /run/two /three" {
			t.Errorf("the image has %s", got)
		}
		if names := s.FIFOs(none); len(names) != 0 {
			t.Errorf("an image without has %v", names)
		}
		if names := s.FIFOs(all); len(names) != maxFIFOs || names[0] != "/top" {
			t.Errorf("of an image with many there are %d, %v first", len(names), names[:1])
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, s.opts)
	var err error
	for ref, img := range map[string]*Image{"/app": &app, "/none": &none, "/many": &all} {
		if *img, err = s.Get(t.Context(), host+ref); err != nil {
			t.Fatal(err)
		}
	}
	check()
	for _, img := range []Image{app, none, all} {
		if err := s.Remove(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.collector.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, s)
}
