package spec

import (
	"slices"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/capability"
)

func TestCapabilities(t *testing.T) {
	without := func(all []string, names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(names, n) })
	}
	for name, tc := range map[string]struct {
		add, drop, ambient []string
		bounding, kept     []string
	}{
		"defaults":             {bounding: []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP"}},
		"all":                  {add: []string{"all"}, bounding: capability.All},
		"all but one":          {add: []string{"ALL"}, drop: []string{"cap_chown"}, bounding: without(capability.All, "CAP_CHOWN")},
		"none":                 {drop: []string{"ALL"}},
		"none but one":         {add: []string{"CAP_NET_ADMIN"}, drop: []string{"ALL"}, bounding: []string{"CAP_NET_ADMIN"}},
		"dropped after added":  {add: []string{"NET_ADMIN"}, drop: []string{"NET_ADMIN", "ALL"}},
		"ambient":              {drop: []string{"ALL"}, ambient: []string{"NET_BIND_SERVICE"}, bounding: []string{"CAP_NET_BIND_SERVICE"}, kept: []string{"CAP_NET_BIND_SERVICE"}},
		"ambient, but dropped": {drop: []string{"ALL", "KILL"}, ambient: []string{"KILL", "CHOWN"}, bounding: []string{"CAP_CHOWN"}, kept: []string{"CAP_CHOWN"}},
		"ambient all":          {drop: []string{"KILL"}, ambient: []string{"ALL"}, bounding: without(capability.All, "CAP_KILL"), kept: without(capability.All, "CAP_KILL")},
	} {
		t.Run(name, func(t *testing.T) {
			req := &runtimeapi.Capability{AddCapabilities: tc.add, DropCapabilities: tc.drop, AddAmbientCapabilities: tc.ambient}
			for uid, start := range map[uint32][]string{0: tc.bounding, 1000: tc.kept} {
				c, err := capabilities(req, uid)
				if err != nil {
					t.Fatal(err)
				}
				for set, got := range map[string]struct{ got, want []string }{
					"bounding": {c.Bounding, tc.bounding}, "effective": {c.Effective, start}, "permitted": {c.Permitted, start},
					"inheritable": {c.Inheritable, tc.kept}, "ambient": {c.Ambient, tc.kept},
				} {
					if !slices.Equal(got.got, got.want) {
						t.Errorf("uid %d, %s: got %v, want %v", uid, set, got.got, got.want)
					}
				}
			}
		})
	}
	for _, req := range []*runtimeapi.Capability{
		{AddCapabilities: []string{"X"}}, {DropCapabilities: []string{""}}, {AddAmbientCapabilities: []string{"CAP_CAP_KILL"}},
	} {
		_, err := capabilities(req, 0)
		bad("unknown").check(t, err)
	}
}
