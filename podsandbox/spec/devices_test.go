package spec

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestDevices(t *testing.T) {
	for name, tc := range map[string]struct {
		host, place string
		want        want
	}{
		"of the sandbox":  {"/dev/null", "/dev/mine", want{}},
		"outside of /dev": {"/dev/null", "/etc/null", native("outside of /dev")},
		"of the host":     {"/dev/ptmx", "/dev/ptmx", native("/dev/ptmx (c 5:2)")},
		"a folder":        {"/dev/pts", "/dev/x", native("/dev/pts, which is a folder")},
		"absent":          {"/dev/nosuch", "/dev/x", bad("/dev/nosuch does not exist")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Devices([]*runtimeapi.Device{{HostPath: tc.host, ContainerPath: tc.place}})
			tc.want.check(t, err)
			if err == nil && (len(got) != 1 || got[0].Path != tc.place || got[0].Type != "c" || got[0].Major != 1 || got[0].Minor != 3) {
				t.Errorf("devices = %+v", got)
			}
		})
	}
}
