package spec

import (
	"testing"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestDevices(t *testing.T) {
	for name, tc := range map[string]struct {
		host, place string
		number      [2]int64
		want        want
	}{
		"null":            {"/dev/null", "/dev/mine", [2]int64{1, 3}, want{}},
		"outside of /dev": {"/dev/null", "/etc/null", [2]int64{1, 3}, want{}},
		"another":         {"/dev/ptmx", "/dev/ptmx", [2]int64{5, 2}, want{}},
		"a directory":     {"/dev/pts", "/dev/x", [2]int64{}, want{errdefs.ErrFailedPrecondition, "/dev/pts is a directory"}},
		"absent":          {"/dev/nosuch", "/dev/x", [2]int64{}, bad("/dev/nosuch does not exist")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Devices([]*runtimeapi.Device{{HostPath: tc.host, ContainerPath: tc.place}})
			tc.want.check(t, err)
			if err == nil && (len(got) != 1 || got[0].Path != tc.place || got[0].Type != "c" || [2]int64{got[0].Major, got[0].Minor} != tc.number) {
				t.Errorf("devices = %+v", got)
			}
		})
	}
}
