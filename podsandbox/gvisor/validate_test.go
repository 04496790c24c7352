package gvisor

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// finding is a class of error and a part of its text; the zero value is none.
type finding struct {
	class error
	text  string
}

func nonsense(text string) finding  { return finding{errdefs.ErrInvalidArgument, text} }
func needsHost(text string) finding { return finding{engine.ErrNeedsHost, text} }

func (f finding) check(t *testing.T, err error) {
	t.Helper()
	if f.class == nil {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	if !errors.Is(err, f.class) || !strings.Contains(err.Error(), f.text) {
		t.Fatalf("got %v, want %q of class %v", err, f.text, f.class)
	}
	if f.class == engine.ErrNeedsHost && !strings.HasSuffix(err.Error(), ": not possible in a gVisor sandbox: failed precondition") {
		t.Errorf("the text is %q", err)
	}
}

func TestValidatePod(t *testing.T) {
	type pod = *runtimeapi.PodSandboxConfig
	sc := func(p pod) *runtimeapi.LinuxSandboxSecurityContext { return p.Linux.SecurityContext }
	sysctl := func(name, value string) func(pod) {
		return func(p pod) { p.Linux.Sysctls = map[string]string{name: value} }
	}
	ids := []*runtimeapi.IDMapping{{HostId: 100000, Length: 65536}}
	userNamespace := func(p pod) {
		sc(p).NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
	}
	hostNetwork := func(p pod) { sc(p).NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE }
	privileged := func(p pod) { sc(p).Privileged = true }
	plain := func() pod {
		return &runtimeapi.PodSandboxConfig{Linux: &runtimeapi.LinuxPodSandboxConfig{
			Resources:       &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "1GB"}}},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{}},
		}}
	}
	ok := finding{}
	for name, tc := range map[string]struct {
		change func(pod)
		want   finding
	}{
		"plain":                      {func(pod) {}, ok},
		"host network":               {hostNetwork, ok},
		"user namespace":             {userNamespace, ok},
		"both":                       {func(p pod) { hostNetwork(p); userNamespace(p) }, needsHost("user namespace in a pod on the host's network")},
		"host PID":                   {func(p pod) { sc(p).NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE }, needsHost("pod asks for the host's PID namespace")},
		"host IPC":                   {func(p pod) { sc(p).NamespaceOptions.Ipc = runtimeapi.NamespaceMode_NODE }, needsHost("pod asks for the host's IPC namespace")},
		"sysctl not in gVisor":       {sysctl("kernel.shm_rmid_forced", "1"), needsHost("shm_rmid_forced")},
		"the same with slashes":      {sysctl("net/core/somaxconn", "1"), needsHost("1024 connections")},
		"sysctl that is so":          {sysctl("net.ipv4.ip_unprivileged_port_start", "0"), ok},
		"sysctl that is not so":      {sysctl("net.ipv4.tcp_fin_timeout", "30"), needsHost(`tcp_fin_timeout="30"`)},
		"sysctl of nonsense":         {sysctl("net.ipv4.ping_group_range", "a b"), nonsense("not a number")},
		"huge pages":                 {func(p pod) { p.Linux.Resources.HugepageLimits[0].Limit = 1 }, needsHost("huge pages of 1GB")},
		"AppArmor of the host":       {func(p pod) { sc(p).Apparmor = &runtimeapi.SecurityProfile{ProfileType: 2, LocalhostRef: "p"} }, needsHost("AppArmor profile p")},
		"block I/O class":            {func(p pod) { p.Annotations = map[string]string{"blockio.resources.beta.kubernetes.io/pod": "x"} }, needsHost("blockio")},
		"privileged":                 {privileged, needsHost("security.privileged_pods")},
		"privileged, and host's PID": {func(p pod) { privileged(p); sc(p).NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE }, needsHost("PID")},
	} {
		t.Run(name, func(t *testing.T) {
			p := plain()
			tc.change(p)
			tc.want.check(t, (&Engine{}).Validate(p, nil))
		})
	}
	p := plain()
	privileged(p)
	ok.check(t, (&Engine{opts: Options{PrivilegedInSandbox: true}}).Validate(p, nil))
	ok.check(t, (&Engine{}).Validate(&runtimeapi.PodSandboxConfig{}, nil))
}

func TestValidateContainer(t *testing.T) {
	type container = *runtimeapi.ContainerConfig
	sc := func(c container) *runtimeapi.LinuxContainerSecurityContext { return c.Linux.SecurityContext }
	mount := func(m *runtimeapi.Mount) func(container) {
		return func(c container) { c.Mounts = []*runtimeapi.Mount{m} }
	}
	at := func(p string) *runtimeapi.Mount { return &runtimeapi.Mount{ContainerPath: p, HostPath: "/srv"} }
	ok := finding{}
	for name, tc := range map[string]struct {
		change func(container)
		want   finding
	}{
		"plain":                {func(container) {}, ok},
		"host PID":             {func(c container) { sc(c).NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE }, needsHost("container asks for the host's PID namespace")},
		"host IPC":             {func(c container) { sc(c).NamespaceOptions.Ipc = runtimeapi.NamespaceMode_NODE }, needsHost("container asks for the host's IPC namespace")},
		"huge pages":           {func(c container) { c.Linux.Resources.HugepageLimits[0].Limit = 1 }, needsHost("2MB")},
		"AppArmor of the host": {func(c container) { sc(c).Apparmor = &runtimeapi.SecurityProfile{ProfileType: 2, LocalhostRef: "p"} }, needsHost("profile p")},
		"AppArmor string":      {func(c container) { sc(c).ApparmorProfile = "localhost/p" }, needsHost("profile p")}, //nolint:staticcheck // older kubelets send it
		"RDT class":            {func(c container) { c.Annotations = map[string]string{"rdt.resources.beta.kubernetes.io/pod": "x"} }, needsHost("rdt")},
		"bidirectional":        {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", Propagation: 2}), needsHost("mount /a with bidirectional propagation")},
		"over /dev":            {mount(at("/dev/")), needsHost("mount over /dev")},
		"over /proc/sys":       {mount(at("/proc/sys")), needsHost("mount over /proc/sys")},
		"over /dev/shm":        {mount(at("/dev/shm")), ok},
		"over /processes":      {mount(at("/processes")), ok},
	} {
		t.Run(name, func(t *testing.T) {
			c := &runtimeapi.ContainerConfig{Linux: &runtimeapi.LinuxContainerConfig{
				Resources:       &runtimeapi.LinuxContainerResources{HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{}},
			}}
			tc.change(c)
			tc.want.check(t, (&Engine{}).Validate(&runtimeapi.PodSandboxConfig{}, c))
		})
	}
	ok.check(t, (&Engine{}).Validate(&runtimeapi.PodSandboxConfig{}, &runtimeapi.ContainerConfig{}))
}

func TestCheckSELinux(t *testing.T) {
	label := &runtimeapi.SELinuxOption{Level: "s0:c1"}
	finding{}.check(t, checkSELinux(label, false))
	finding{}.check(t, checkSELinux(nil, true))
	finding{}.check(t, checkSELinux(&runtimeapi.SELinuxOption{}, true))
	needsHost("s0:c1").check(t, checkSELinux(label, true))
}
