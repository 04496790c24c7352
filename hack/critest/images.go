package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

// digestOf is the image that critest pulls by a digest in its source, and that
// digest. No image built here can have it.
const (
	digestOf     = "k8s-staging-cri-tools/test-image-digest"
	sourceDigest = "sha256:9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf"
)

// server is how the images that stand for nginx and httpd run: critest asks for a
// page, for `echo`, and for the pid file of nginx.
func server(port int) v1.Config {
	return v1.Config{
		Env: []string{"PATH=/bin"},
		// The shell stays, and its command line is the one of nginx's first process.
		Cmd: []string{"sh", "-c", fmt.Sprintf("trap 'exit 0' TERM; echo httpd; echo $$ > /var/run/nginx.pid; httpd -f -p %d -h /www & wait", port), "nginx: master process nginx"},
	}
}

// tools are programs that critest's busybox has and Debian's static one has not.
// Each does what the suite asks of it.
var tools = []testimages.File{
	{Path: "bin/pgrep", Mode: 0o755, Content: []byte("#!/bin/sh\npidof \"$1\"\n")},
}

// shell is a busybox that starts programs as a shell does, with the libraries it
// is linked with, as sh and as ls. Each is a file of its own: one can be masked
// without the other.
func shell(ctx context.Context, program string) ([]testimages.File, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read shell: %w (run `hack/setup.sh critest`)", err)
	}
	files := []testimages.File{
		{Path: "bin/sh", Mode: 0o755, Content: content},
		{Path: "bin/ls", Mode: 0o755, Content: content},
	}
	list, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("list libraries of %s: %w", program, err)
	}
	for _, word := range strings.Fields(string(list)) {
		if !filepath.IsAbs(word) {
			continue
		}
		lib, err := os.ReadFile(word)
		if err != nil {
			return nil, fmt.Errorf("read library of %s: %w", program, err)
		}
		files = append(files, testimages.File{Path: strings.TrimPrefix(word, "/"), Mode: 0o755, Content: lib})
	}
	return files, nil
}

// images builds everything critest pulls, by repository and tag below either of
// its registries.
func images(ctx context.Context, repo string) (map[string]v1.Image, error) {
	busybox, err := testimages.Busybox()
	if err != nil {
		return nil, err
	}
	nonewprivs, err := compile(ctx, "nonewprivs")
	if err != nil {
		return nil, err
	}
	suid, err := testimages.Image(v1.Config{Entrypoint: []string{"/nonewprivs"}},
		[]testimages.File{{Path: "nonewprivs", Mode: 0o4755, Content: nonewprivs}})
	if err != nil {
		return nil, err
	}
	ipcs, err := compile(ctx, "ipcs")
	if err != nil {
		return nil, err
	}
	programs, err := shell(ctx, filepath.Join(repo, "bin", "critest-busybox"))
	if err != nil {
		return nil, err
	}
	out := map[string]v1.Image{"e2e-test-images/nonewprivs:1.3": suid}
	b := builder{base: busybox, out: out}

	web := testimages.File{Path: "www/index.html", Mode: 0o644, Content: []byte("hello\n")}
	b.add(server(80), []testimages.File{web}, "e2e-test-images/nginx:1.14-2", "e2e-test-images/httpd:2.4.39-4")
	b.add(server(12003), []testimages.File{web}, staging("hostnet-nginx-"+runtime.GOARCH+":latest"))

	sh := v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}}
	b.add(sh, slices.Concat(tools, programs, []testimages.File{{Path: "bin/ipcs", Mode: 0o755, Content: ipcs}}), "e2e-test-images/busybox:1.29-2")
	b.add(sh, marker("pause"), "pause:3.9")
	b.add(sh, marker("latest"), staging("test-image-latest:latest"))
	b.add(sh, marker("digest"), digestOf+":latest")
	for _, tag := range []string{"test", "all"} {
		b.add(sh, marker(tag), staging("test-image-tag:"+tag))
	}
	for _, n := range []string{"1", "2", "3"} {
		b.add(sh, marker(n), staging("test-image-"+n+":latest"))
	}
	b.add(sh, marker("same"), staging("test-image-tags:1"), staging("test-image-tags:2"), staging("test-image-tags:3"))
	for name, user := range map[string]string{"uid": "1002", "username": "www-data", "uid-group": "1003:1004", "username-group": "www-data:1004"} {
		c := sh
		c.User = user
		b.add(c, marker(user), staging("test-image-user-"+name+":latest"))
	}
	c := sh
	c.User = "1000"
	b.add(c, []testimages.File{
		{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/:/bin/sh\n")},
		{Path: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")},
	}, staging("test-image-predefined-group:latest"))
	return out, b.err
}

func staging(image string) string { return "k8s-staging-cri-tools/" + image }

// marker makes one image differ from another.
func marker(text string) []testimages.File {
	return []testimages.File{{Path: "marker", Mode: 0o644, Content: []byte(text)}}
}

// builder puts images on top of one another and keeps the first error.
type builder struct {
	base v1.Image
	out  map[string]v1.Image
	err  error
}

func (b *builder) add(config v1.Config, files []testimages.File, names ...string) {
	if b.err != nil {
		return
	}
	img, err := testimages.OnTop(b.base, config, files)
	if err != nil {
		b.err = fmt.Errorf("build image %s: %w", names[0], err)
		return
	}
	for _, n := range names {
		b.out[n] = img
	}
}

// compile builds a static program of this directory.
func compile(ctx context.Context, name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "critest-")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", name, err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./hack/critest/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", name, err)
	}
	return content, nil
}
