package spec

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPrepareMounts(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(dir, p) }
	writeFile(t, at("file"), "x")
	for link, target := range map[string]string{"link": "file", "nowhere": "absent", "circle": "circle", "parent": "."} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		source, resolved string
		want             want
	}{
		"file":               {at("file"), at("file"), want{}},
		"link":               {at("link"), at("file"), want{}},
		"link in the middle": {at("parent/file"), at("file"), want{}},
		"absent":             {at("new/directory"), at("new/directory"), want{}},
		"absent behind link": {at("parent/other"), at("other"), want{}},
		"link to nowhere":    {at("nowhere"), "", want{errdefs.ErrFailedPrecondition, "link to nowhere"}},
		"circle":             {at("circle"), "", want{errdefs.ErrFailedPrecondition, "circle"}},
		"below a file":       {at("file/x"), "", want{errdefs.ErrFailedPrecondition, "file"}},
		"relative":           {"file", "", bad("absolute")},
		"empty":              {"", "", bad("absolute")},
	} {
		t.Run(name, func(t *testing.T) {
			request := []*runtimeapi.Mount{{ContainerPath: "/in", HostPath: tc.source, Readonly: true}}
			got, err := PrepareMounts(request)
			tc.want.check(t, err)
			if request[0].HostPath != tc.source {
				t.Error("request was modified")
			}
			if err != nil {
				return
			}
			if got[0].HostPath != tc.resolved || !got[0].Readonly || got[0].ContainerPath != "/in" {
				t.Errorf("got %v", got[0])
			}
			if _, err := os.Stat(tc.resolved); err != nil {
				t.Error(err)
			}
		})
	}
	if got, err := PrepareMounts(nil); err != nil || got == nil {
		t.Errorf("no mounts: got %v, %v; want an empty list, which is not nil", got, err)
	}
}

func TestClassifyPath(t *testing.T) {
	for errno, class := range map[unix.Errno]error{
		unix.EACCES: errdefs.ErrPermissionDenied, unix.ENOSPC: errdefs.ErrResourceExhausted, unix.EROFS: errdefs.ErrFailedPrecondition,
	} {
		if err := classifyPath("/x", &os.PathError{Op: "mkdir", Path: "/x", Err: errno}); !errors.Is(err, class) || !errors.Is(err, errno) {
			t.Errorf("%v: got %v", errno, err)
		}
	}
}
