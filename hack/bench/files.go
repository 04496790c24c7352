package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testimages"
)

const (
	fileTurns = 7

	// fileTimeout, in seconds, is far above what any runtime takes.
	fileTimeout = 600

	// fileworkPath is where containers have the program.
	fileworkPath = "/filework"
)

// measureFiles has one new container work on its root file system.
func measureFiles(ctx context.Context, o options, t *target) ([]result, error) {
	before, err := t.disk()
	if err != nil {
		return nil, err
	}
	p, _, err := t.newPod(ctx, o.filesImage, printOnce,
		&runtimeapi.Mount{HostPath: o.programs.filework, ContainerPath: fileworkPath, Readonly: true})
	if err != nil {
		return nil, err
	}
	idle, err := t.disk()
	if err != nil {
		return nil, err
	}
	r, err := t.client.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.container, Timeout: fileTimeout,
		Cmd: []string{fileworkPath, "-files", strconv.Itoa(o.files), "-mb", strconv.Itoa(o.fileMB)}})
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("exit code %d: %s", r.ExitCode, r.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	out, err := parseFilework(r.Stdout)
	if err != nil {
		return nil, err
	}
	if t.root != "" {
		out = append(out, single("disk of an idle pod", "KiB", float64(idle-before)/1024))
	}
	return out, t.removePod(ctx, p)
}

// parseFilework reads the line that filework prints.
func parseFilework(line []byte) ([]result, error) {
	var rows []struct {
		Name, Unit string
		Value      float64
	}
	if err := json.Unmarshal(line, &rows); err != nil {
		return nil, fmt.Errorf("parse what filework printed, %q: %w", line, err)
	}
	var out []result
	for _, r := range rows {
		out = append(out, single(r.Name, r.Unit, r.Value))
	}
	return out, nil
}

// pushFilesImage makes an image with a shell and some hundred files.
func pushFilesImage(ctx context.Context, registry string) (string, error) {
	img, err := testimages.Busybox()
	if err != nil {
		return "", err
	}
	layer, err := bigLayer(rand.New(rand.NewPCG(3, 4)), 0)
	if err != nil {
		return "", err
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return "", fmt.Errorf("build image: %w", err)
	}
	ref := registry + "/bench/files:latest"
	return ref, testimages.PushImage(ctx, ref, img)
}
