package spec

import (
	"encoding/json"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestLimits(t *testing.T) {
	for _, tc := range []struct {
		res  *runtimeapi.LinuxContainerResources
		want string
	}{
		{nil, `null`},
		{&runtimeapi.LinuxContainerResources{OomScoreAdj: 5}, `{}`},
		{&runtimeapi.LinuxContainerResources{CpuQuota: -1}, `{"cpu":{"quota":-1}}`},
		{&runtimeapi.LinuxContainerResources{
			CpuPeriod: 1, CpuQuota: 2, CpuShares: 3, MemoryLimitInBytes: 4, CpusetCpus: "0", CpusetMems: "1", MemorySwapLimitInBytes: 6,
			HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}, Unified: map[string]string{"a": "b"},
		}, `{"memory":{"limit":4,"swap":6},"cpu":{"shares":3,"quota":2,"period":1,"cpus":"0","mems":"1"},"hugepageLimits":[{"pageSize":"2MB","limit":0}],"unified":{"a":"b"}}`},
	} {
		if got, _ := json.Marshal(Limits(tc.res)); string(got) != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

func TestStopSignal(t *testing.T) {
	for _, tc := range []struct {
		image   string
		request runtimeapi.Signal
		want    unix.Signal
	}{
		{"", 0, unix.SIGTERM},
		{"SIGQUIT", 0, unix.SIGQUIT},
		{"quit", 0, unix.SIGQUIT},
		{"3", 0, unix.SIGQUIT},
		{"SIGRTMIN+3", 0, 37},
		{"RTMAX-1", 0, 63},
		{"SIGRTMIN", 0, 34},
		{"SIGCLD", 0, unix.SIGCHLD},
		{"SIGQUIT", runtimeapi.Signal_SIGNAL_SIGUSR1, unix.SIGUSR1},
		{"nonsense", runtimeapi.Signal_SIGNAL_SIGRTMINPLUS15, 49},
		{"", runtimeapi.Signal_SIGNAL_SIGRTMAXMINUS14, 50},
		{"", runtimeapi.Signal_SIGNAL_SIGRTMAX, 64},
	} {
		got, err := StopSignal(tc.image, &runtimeapi.ContainerConfig{StopSignal: tc.request})
		if err != nil || got != tc.want {
			t.Errorf("%q, %s: got %d, %v; want %d", tc.image, tc.request, got, err, tc.want)
		}
	}
	for _, image := range []string{"SIGNOPE", "0", "65", "-1", "SIGRTMIN-1", "SIGRTMIN+31", "SIGRTMIN+", "SIGRTMAX+1", " 9"} {
		_, err := StopSignal(image, nil)
		bad("stop signal").check(t, err)
	}
}

// Every signal that the interface names has to exist here.
func TestStopSignalKnowsAllOfTheInterface(t *testing.T) {
	for n := range runtimeapi.Signal_name {
		sig, err := requestSignal(runtimeapi.Signal(n))
		if err != nil || (sig == 0) != (n == 0) {
			t.Errorf("%s: got %d, %v", runtimeapi.Signal(n), sig, err)
		}
	}
}

func TestResolvConf(t *testing.T) {
	host := []byte("nameserver 1.1.1.1\n")
	for _, tc := range []struct {
		dns  *runtimeapi.DNSConfig
		want string
	}{
		{nil, string(host)},
		{&runtimeapi.DNSConfig{}, string(host)},
		{basePod().DnsConfig, "search default.svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n"},
		{&runtimeapi.DNSConfig{Searches: []string{"a", "b"}}, "search a b\n"},
	} {
		if got := ResolvConf(tc.dns, host); string(got) != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestHostsFile(t *testing.T) {
	base := string(HostsFile("", nil))
	if got := string(HostsFile("", []string{"10.0.0.1"})); got != base {
		t.Errorf("without a name: %q", got)
	}
	if got, want := string(HostsFile("web-0", []string{"10.0.0.1", "fd00::1"})), base+"10.0.0.1\tweb-0\nfd00::1\tweb-0\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
