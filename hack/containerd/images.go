package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

// stress stands for the program that consumes memory, in the image of that purpose.
const stress = "#!/bin/sh\nx=$(head -c 125829120 /dev/zero | tr '\\0' x)\nsleep 30\n"

// pause stands for the program of the pause image, which a test looks for.
const pause = "#!/bin/sh\nexec sleep 1000000\n"

// nginx stands for the server, which opens its log as a file.
const nginx = "#!/bin/sh\necho start worker processes > /dev/stderr\nexec sleep 1000000\n"

// image is one of the suite's list: its key there, its config, and what it has
// beside busybox.
type image struct {
	key    string
	config v1.Config
	files  []testimages.File
}

var images = []image{
	{"BusyBox", shell, []testimages.File{
		{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n")},
		{Path: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\ndaemon:x:1:\nwheel:x:10:root\n")},
	}},
	{"Alpine", shell, nil},
	{"Pause", v1.Config{Env: shell.Env, Entrypoint: []string{"/pause"}}, []testimages.File{{Path: "pause", Mode: 0o755, Content: []byte(pause)}}},
	{"ResourceConsumer", v1.Config{Env: shell.Env, Cmd: []string{"sleep", "1000000"}},
		[]testimages.File{{Path: "bin/stress", Mode: 0o755, Content: []byte(stress)}}},
	{"VolumeCopyUp", withVolumes("/test_dir", "C:/weird_test_dir", "/:colon_prefixed"), []testimages.File{
		{Path: "test_dir/test_file", Mode: 0o644, Content: []byte("test_content\n")},
		{Path: "C:/weird_test_dir/weird_test_file", Mode: 0o644, Content: []byte("test_content\n")},
		{Path: ":colon_prefixed/colon_prefixed_file", Mode: 0o644, Content: []byte("test_content\n")},
	}},
	{"Nginx", v1.Config{Env: shell.Env, User: "1000", Entrypoint: []string{"/nginx"}}, []testimages.File{{Path: "nginx", Mode: 0o755, Content: []byte(nginx)}}},
	{"VolumeOwnership", withVolumes("/test_dir"), []testimages.File{{Path: "test_dir/", Mode: 0o755, UID: 65534, GID: 65534}}},
}

var shell = v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}}

func withVolumes(paths ...string) v1.Config {
	c := shell
	c.Volumes = map[string]struct{}{}
	for _, p := range paths {
		c.Volumes[p] = struct{}{}
	}
	return c
}

// push pushes the images and writes the list of them that the tests read.
func push(ctx context.Context, env *testenv.Env) (list string, err error) {
	base, err := testimages.Busybox()
	if err != nil {
		return "", err
	}
	var lines []string
	for _, i := range images {
		files := append(slices.Clone(i.files), testimages.File{Path: "marker", Mode: 0o644, Content: []byte(i.key)})
		img, err := testimages.OnTop(base, i.config, files)
		if err != nil {
			return "", fmt.Errorf("build image %s: %w", i.key, err)
		}
		ref := fmt.Sprintf("%s/suite/%s:1.0", env.Registry, strings.ToLower(i.key))
		if err := testimages.PushImage(ctx, ref, img); err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("%s = %q", i.key, ref))
	}
	list = filepath.Join(env.Dir, "images.toml")
	if err := os.WriteFile(list, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("write list of images: %w", err)
	}
	return list, nil
}
