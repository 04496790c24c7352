package network

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types/create"
)

func TestResultOf(t *testing.T) {
	const interfaces = `"interfaces":[{"name":"cni0"},{"name":"veth1"},{"name":"eth0","sandbox":"/run/netns/x"},{"name":"net1","sandbox":"/run/netns/x"}]`
	for name, tc := range map[string]struct {
		result string
		ips    []string
		class  func(error) bool
	}{
		"dual stack in order": {
			result: `{"cniVersion":"1.1.0",` + interfaces + `,"ips":[{"interface":2,"address":"fd00::5/64"},{"interface":2,"address":"10.1.0.5/24"}]}`,
			ips:    []string{"fd00::5", "10.1.0.5"},
		},
		"others' addresses": {
			result: `{"cniVersion":"1.0.0",` + interfaces + `,"ips":[{"interface":0,"address":"10.1.0.1/24"},{"interface":3,"address":"10.2.0.5/24"},{"interface":2,"address":"10.1.0.5/24"}]}`,
			ips:    []string{"10.1.0.5"},
		},
		"no interface said": {result: `{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.5/24"}]}`, ips: []string{"10.1.0.5"}},
		"old version":       {result: `{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.5/24"},"ip6":{"ip":"fd00::5/64"}}`, ips: []string{"10.1.0.5", "fd00::5"}},
		"no address":        {result: `{"cniVersion":"1.0.0",` + interfaces + `}`, class: errdefs.IsFailedPrecondition},
		"address elsewhere": {result: `{"cniVersion":"1.0.0",` + interfaces + `,"ips":[{"interface":0,"address":"10.1.0.1/24"}]}`, class: errdefs.IsFailedPrecondition},
		"no such interface": {result: `{"cniVersion":"1.0.0",` + interfaces + `,"ips":[{"interface":4,"address":"10.1.0.1/24"}]}`, class: errdefs.IsInternal},
		"negative":          {result: `{"cniVersion":"1.0.0",` + interfaces + `,"ips":[{"interface":-1,"address":"10.1.0.1/24"}]}`, class: errdefs.IsInternal},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := create.CreateFromBytes([]byte(tc.result))
			if err != nil {
				t.Fatal(err)
			}
			got, err := resultOf(res, "eth0")
			if tc.class != nil {
				if !tc.class(err) {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.IPs, tc.ips) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func FuzzResultOf(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","interfaces":[null],"ips":[null,{"interface":0,"address":"10.1.0.5/24"}]}`))
	f.Add([]byte(`{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.5/24"}}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","ips":[]}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","ips":[{}]}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","ips":[{"interface":-1,"address":"10.1.0.5/24"}]}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","ips":[{"interface":1,"address":"10.1.0.5/24"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		res, err := create.CreateFromBytes(raw)
		if err != nil {
			return
		}
		got, err := resultOf(res, "eth0")
		if (err == nil) != (len(got.IPs) > 0) {
			t.Errorf("got %+v, %v", got, err)
		}
		for _, ip := range got.IPs {
			if _, err := netip.ParseAddr(ip); err != nil {
				t.Errorf("no address: %v", err)
			}
		}
	})
}
