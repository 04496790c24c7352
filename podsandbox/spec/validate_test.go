package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// want is a class of error and a part of its text.
type want struct {
	class error
	text  string
}

func bad(text string) want { return want{errdefs.ErrInvalidArgument, text} }

// anEngines is what spec lets pass, since an engine may be able to give it.
var anEngines = want{}

func (w want) check(t *testing.T, err error) {
	t.Helper()
	if w.class == nil {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	if !errors.Is(err, w.class) || !strings.Contains(err.Error(), w.text) {
		t.Fatalf("got %v, want %q of class %v", err, w.text, w.class)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error is not one line: %q", err)
	}
}

func TestValidatePod(t *testing.T) {
	type pod = *runtimeapi.PodSandboxConfig
	sc := func(p pod) *runtimeapi.LinuxSandboxSecurityContext { return p.Linux.SecurityContext }
	ports := func(m ...*runtimeapi.PortMapping) func(pod) { return func(p pod) { p.PortMappings = m } }
	sysctl := func(name, value string) func(pod) {
		return func(p pod) { p.Linux.Sysctls = map[string]string{name: value} }
	}
	ok := want{}
	for name, tc := range map[string]struct {
		change func(pod)
		want   want
	}{
		"plain":                  {func(pod) {}, ok},
		"no metadata":            {func(p pod) { p.Metadata = nil }, bad("metadata")},
		"no name":                {func(p pod) { p.Metadata.Name = "" }, bad("name is empty")},
		"no namespace":           {func(p pod) { p.Metadata.Namespace = "" }, bad("namespace is empty")},
		"no uid":                 {func(p pod) { p.Metadata.Uid = "" }, bad("uid is empty")},
		"slash in name":          {func(p pod) { p.Metadata.Name = "a/b" }, bad("path")},
		"dots as uid":            {func(p pod) { p.Metadata.Uid = ".." }, bad("path")},
		"newline in namespace":   {func(p pod) { p.Metadata.Namespace = "a\nb" }, bad("control")},
		"no hostname":            {func(p pod) { p.Hostname = "" }, ok},
		"hostname 64":            {func(p pod) { p.Hostname = strings.Repeat("a", 64) }, ok},
		"hostname 65":            {func(p pod) { p.Hostname = strings.Repeat("a", 65) }, bad("64")},
		"hostname with newline":  {func(p pod) { p.Hostname = "a\n10.0.0.1 b" }, bad("letters")},
		"hostname with last dot": {func(p pod) { p.Hostname = "web-0.web.default.svc." }, ok},
		"hostname with two":      {func(p pod) { p.Hostname = "web.." }, bad("one '.'")},
		"hostname of a dot":      {func(p pod) { p.Hostname = "." }, bad("begin with")},
		"no log directory":       {func(p pod) { p.LogDirectory = "" }, ok},
		"relative log directory": {func(p pod) { p.LogDirectory = "logs" }, bad("absolute")},
		"climbing log directory": {func(p pod) { p.LogDirectory = "/var/log/../../etc" }, bad(`".."`)},
		"DNS server name":        {func(p pod) { p.DnsConfig.Servers = []string{"dns.test"} }, bad("IP address")},
		"DNS search injection":   {func(p pod) { p.DnsConfig.Searches = []string{"a\nnameserver 6.6.6.6"} }, bad("one word")},
		"DNS option injection":   {func(p pod) { p.DnsConfig.Options = []string{"a b"} }, bad("one word")},
		"port range":             {ports(&runtimeapi.PortMapping{ContainerPort: 65536}), bad("65535")},
		"negative host port":     {ports(&runtimeapi.PortMapping{ContainerPort: 1, HostPort: -1}), bad("65535")},
		"unknown protocol":       {ports(&runtimeapi.PortMapping{Protocol: 7}), bad("protocol 7")},
		"bad host IP":            {ports(&runtimeapi.PortMapping{HostIp: "x", ContainerPort: 1}), bad("host IP")},
		"host port to nothing":   {ports(&runtimeapi.PortMapping{HostPort: 80}), bad("no container port")},
		"host port twice": {ports(
			&runtimeapi.PortMapping{ContainerPort: 1, HostPort: 80}, &runtimeapi.PortMapping{ContainerPort: 2, HostPort: 80}), bad("twice")},
		"host port on two IPs": {ports(
			&runtimeapi.PortMapping{ContainerPort: 1, HostPort: 80, HostIp: "10.0.0.1"},
			&runtimeapi.PortMapping{ContainerPort: 1, HostPort: 80, HostIp: "10.0.0.2"}), ok},
		"windows":             {func(p pod) { p.Windows = &runtimeapi.WindowsPodSandboxConfig{} }, bad("Windows")},
		"cgroup slice":        {func(p pod) { p.Linux.CgroupParent = "kubepods-pod1.slice" }, ok},
		"climbing cgroup":     {func(p pod) { p.Linux.CgroupParent = "/kubepods/../system" }, bad("cgroup parent")},
		"group without user":  {func(p pod) { sc(p).RunAsGroup = &runtimeapi.Int64Value{} }, bad("without run_as_user")},
		"negative user":       {func(p pod) { sc(p).RunAsUser = &runtimeapi.Int64Value{Value: -1} }, bad("outside")},
		"groups policy":       {func(p pod) { sc(p).SupplementalGroupsPolicy = 5 }, bad("policy 5")},
		"IPC of a container":  {func(p pod) { sc(p).NamespaceOptions.Ipc = runtimeapi.NamespaceMode_CONTAINER }, bad("IPC")},
		"network of a target": {func(p pod) { sc(p).NamespaceOptions.Network = runtimeapi.NamespaceMode_TARGET }, bad("network")},
		"unknown PID mode":    {func(p pod) { sc(p).NamespaceOptions.Pid = 9 }, bad("unknown")},
		"pod with a target": {func(p pod) {
			sc(p).NamespaceOptions.Pid, sc(p).NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, "c0"
		}, bad("set it on a container")},
		"id without target":       {func(p pod) { sc(p).NamespaceOptions.TargetId = "x" }, bad("target_id")},
		"host network":            {func(p pod) { sc(p).NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE; p.Linux.Sysctls = nil }, ok},
		"host network and sysctl": {func(p pod) { sc(p).NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE }, bad("host's network")},
		"host PID":                {func(p pod) { sc(p).NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE }, anEngines},
		"host IPC":                {func(p pod) { sc(p).NamespaceOptions.Ipc = runtimeapi.NamespaceMode_NODE }, anEngines},
		"userns NODE": {func(p pod) {
			sc(p).NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE}
		}, ok},
		"userns CONTAINER": {func(p pod) {
			sc(p).NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_CONTAINER}
		}, bad("user namespace")},
		"userns NODE with mappings": {func(p pod) {
			sc(p).NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE, Uids: []*runtimeapi.IDMapping{{Length: 1}}}
		}, bad("no mappings")},
		"sysctl with slashes":   {sysctl("net/ipv4/tcp_sack", "0"), ok},
		"sysctl that climbs":    {sysctl("net/../../etc", "0"), bad("not a sysctl")},
		"sysctl without a dot":  {sysctl("kernel", "0"), bad("not a sysctl")},
		"sysctl with two lines": {sysctl("net.ipv4.tcp_sack", "0\n1"), bad("control")},
		"sysctl not in gVisor":  {sysctl("kernel.shm_rmid_forced", "1"), anEngines},
		"the same with slashes": {sysctl("net/core/somaxconn", "1"), anEngines},
		"sysctl that is so":     {sysctl("net.ipv4.ip_unprivileged_port_start", "0"), ok},
		"sysctl that is not so": {sysctl("net.ipv4.tcp_fin_timeout", "30"), anEngines},
		"sysctl of nonsense":    {sysctl("net.ipv4.ping_group_range", "a b"), anEngines},
		"sysctl given twice": {func(p pod) {
			p.Linux.Sysctls = map[string]string{"net/ipv4/tcp_sack": "1", "net.ipv4.tcp_sack": "0"}
		}, bad("given twice")},
		"negative memory": {func(p pod) { p.Linux.Overhead = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: -1} }, bad("overhead")},
		"huge pages": {func(p pod) {
			p.Linux.Resources.HugepageLimits = []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1}}
		}, anEngines},
		"seccomp type":          {func(p pod) { sc(p).Seccomp.ProfileType = 9 }, bad("profile type 9")},
		"seccomp without a ref": {func(p pod) { sc(p).Seccomp.ProfileType = runtimeapi.SecurityProfile_Localhost }, bad("names no profile")},
		"seccomp with a ref":    {func(p pod) { sc(p).Seccomp.LocalhostRef = "/x" }, bad("Localhost")},
		"seccomp string":        {func(p pod) { sc(p).Seccomp = nil; sc(p).SeccompProfilePath = "strict" }, bad("strict")},
		"AppArmor of the host":  {func(p pod) { sc(p).Apparmor = &runtimeapi.SecurityProfile{ProfileType: 2, LocalhostRef: "p"} }, anEngines},
		"block I/O class":       {func(p pod) { p.Annotations = map[string]string{"blockio.resources.beta.kubernetes.io/pod": "x"} }, anEngines},
		"malformed and the host's": {func(p pod) {
			sc(p).NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_NODE}
			p.Hostname = "?"
		}, bad("hostname")},
	} {
		t.Run(name, func(t *testing.T) {
			p := basePod()
			tc.change(p)
			tc.want.check(t, ValidatePod(p))
		})
	}
	bad("metadata").check(t, ValidatePod(nil))
}

func TestValidateContainer(t *testing.T) {
	type container = *runtimeapi.ContainerConfig
	sc := func(c container) *runtimeapi.LinuxContainerSecurityContext { return c.Linux.SecurityContext }
	mount := func(m ...*runtimeapi.Mount) func(container) { return func(c container) { c.Mounts = m } }
	device := func(host, place, permissions string) func(container) {
		return func(c container) {
			c.Devices = []*runtimeapi.Device{{HostPath: host, ContainerPath: place, Permissions: permissions}}
		}
	}
	at := func(p string) *runtimeapi.Mount { return &runtimeapi.Mount{ContainerPath: p, HostPath: "/srv"} }
	add := func(caps ...string) func(container) {
		return func(c container) { sc(c).Capabilities = &runtimeapi.Capability{AddCapabilities: caps} }
	}
	ok := want{}
	for name, tc := range map[string]struct {
		change func(container)
		want   want
	}{
		"plain":         {func(container) {}, ok},
		"no metadata":   {func(c container) { c.Metadata = nil }, bad("metadata")},
		"no name":       {func(c container) { c.Metadata.Name = "" }, bad("name is empty")},
		"slash in name": {func(c container) { c.Metadata.Name = "../x" }, bad("path")},
		"no image":      {func(c container) { c.Image = nil }, bad("no image")},
		"empty image":   {func(c container) { c.Image.Image = "" }, bad("no image")},
		"endless mount": {func(c container) {
			c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/" + strings.Repeat("a/", MaxPath), HostPath: "/"}}
		}, bad("at most 4095")},
		"endless masked path":       {func(c container) { c.Linux.SecurityContext.MaskedPaths = []string{"/" + strings.Repeat("a", MaxPath)} }, bad("at most 4095")},
		"NUL in command":            {func(c container) { c.Command = []string{"a\x00b"} }, bad("NUL")},
		"relative working dir":      {func(c container) { c.WorkingDir = "srv" }, bad("working directory")},
		"empty env name":            {func(c container) { c.Envs[0].Key = "" }, bad("environment")},
		"equals in env name":        {func(c container) { c.Envs[0].Key = "A=B" }, bad("environment")},
		"NUL in env value":          {func(c container) { c.Envs[0].Value = []byte{0} }, bad("PORT")},
		"no log path":               {func(c container) { c.LogPath = "" }, ok},
		"absolute log path":         {func(c container) { c.LogPath = "/etc/passwd" }, bad("relative")},
		"climbing log path":         {func(c container) { c.LogPath = "a/../../b" }, bad("below")},
		"log path is the directory": {func(c container) { c.LogPath = "./" }, bad("below")},
		"unknown signal":            {func(c container) { c.StopSignal = 99 }, bad("signal 99")},
		"windows":                   {func(c container) { c.Windows = &runtimeapi.WindowsContainerConfig{} }, bad("Windows")},
		"user and name":             {func(c container) { sc(c).RunAsUser = &runtimeapi.Int64Value{}; sc(c).RunAsUsername = "a" }, bad("both")},
		"group alone":               {func(c container) { sc(c).RunAsGroup = &runtimeapi.Int64Value{} }, bad("without")},
		"user too high":             {func(c container) { sc(c).RunAsUser = &runtimeapi.Int64Value{Value: 1 << 31} }, bad("outside")},
		"group too low":             {func(c container) { sc(c).SupplementalGroups = []int64{-4} }, bad("-4")},
		"groups policy":             {func(c container) { sc(c).SupplementalGroupsPolicy = 2 }, bad("policy 2")},
		"host network, pod without": {func(c container) { sc(c).NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE }, bad("set it on the pod")},
		"shared PID":                {func(c container) { sc(c).NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD }, ok},
		"host PID":                  {func(c container) { sc(c).NamespaceOptions.Pid = runtimeapi.NamespaceMode_NODE }, anEngines},
		"target PID": {func(c container) {
			sc(c).NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
			sc(c).NamespaceOptions.TargetId = "c0"
		}, ok},
		"target without id":      {func(c container) { sc(c).NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET }, bad("target_id")},
		"id without target":      {func(c container) { sc(c).NamespaceOptions.TargetId = "c0" }, bad("target_id")},
		"host IPC":               {func(c container) { sc(c).NamespaceOptions.Ipc = runtimeapi.NamespaceMode_NODE }, anEngines},
		"privileged":             {func(c container) { sc(c).Privileged = true }, bad("privileged")},
		"capability":             {add("cap_net_admin", "SYS_TIME", "ALL"), ok},
		"unknown capability":     {add("FLY"), bad("FLY")},
		"relative masked path":   {func(c container) { sc(c).MaskedPaths = []string{"proc"} }, bad("masked")},
		"climbing readonly path": {func(c container) { sc(c).ReadonlyPaths = []string{"/a/../b"} }, bad("readonly")},
		"negative memory":        {func(c container) { c.Linux.Resources.MemoryLimitInBytes = -1 }, bad("memory")},
		"negative shares":        {func(c container) { c.Linux.Resources.CpuShares = -1 }, bad("shares")},
		"quota":                  {func(c container) { c.Linux.Resources.CpuQuota = -2 }, bad("quota")},
		"swap":                   {func(c container) { c.Linux.Resources.MemorySwapLimitInBytes = -2 }, bad("swap")},
		"oom score":              {func(c container) { c.Linux.Resources.OomScoreAdj = 1001 }, bad("oom_score_adj")},
		"cpuset":                 {func(c container) { c.Linux.Resources.CpusetCpus = "0-2,5" }, ok},
		"bad cpuset":             {func(c container) { c.Linux.Resources.CpusetMems = "0\n1" }, bad("cpuset")},
		"cgroup file":            {func(c container) { c.Linux.Resources.Unified = map[string]string{"../x": "1"} }, bad("cgroup file")},
		"huge pages":             {func(c container) { c.Linux.Resources.HugepageLimits[0].Limit = 1 }, anEngines},
		"AppArmor type":          {func(c container) { sc(c).Apparmor.ProfileType = 4 }, bad("type 4")},
		"AppArmor of the host":   {func(c container) { sc(c).Apparmor = &runtimeapi.SecurityProfile{ProfileType: 2, LocalhostRef: "p"} }, anEngines},
		"AppArmor string":        {func(c container) { sc(c).Apparmor = nil; sc(c).ApparmorProfile = "localhost/p" }, anEngines},
		"AppArmor bad string":    {func(c container) { sc(c).ApparmorProfile = "p" }, bad("AppArmor")},
		"seccomp string":         {func(c container) { sc(c).SeccompProfilePath = "localhost/" }, bad("seccomp")},

		"device":             {device("/dev/fuse", "/dev/fuse", "rw"), ok},
		"device, relative":   {device("dev/fuse", "/dev/fuse", ""), bad("absolute")},
		"device to nowhere":  {device("/dev/fuse", "", ""), bad("place of device /dev/fuse")},
		"device permissions": {device("/dev/fuse", "/dev/fuse", "rx"), bad(`"rx"`)},
		"RDT class":          {func(c container) { c.Annotations["rdt.resources.beta.kubernetes.io/pod"] = "x" }, anEngines},

		"relative mount":         {mount(at("data")), bad("absolute")},
		"climbing mount":         {mount(at("/a/../b")), bad(`".."`)},
		"mount on root":          {mount(at("//")), bad("hide")},
		"mount twice":            {mount(at("/a"), at("/a/")), bad("twice")},
		"relative source":        {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "a"}), bad("absolute")},
		"no source":              {mount(&runtimeapi.Mount{ContainerPath: "/a"}), bad("absolute")},
		"sub-path without image": {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", ImageSubPath: "x"}), ok},
		"image and source":       {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", Image: &runtimeapi.ImageSpec{Image: "i"}}), bad("one of them")},
		"image volume":           {mount(&runtimeapi.Mount{ContainerPath: "/a", Image: &runtimeapi.ImageSpec{Image: "i"}, Readonly: true}), ok},
		"mapped ids":             {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", GidMappings: []*runtimeapi.IDMapping{{Length: 1}}}), bad("alone")},
		"propagation":            {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", Propagation: 3}), bad("propagation 3")},
		"bidirectional":          {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", Propagation: 2}), anEngines},
		"engine's option":        {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", MountOptions: []string{"dcache=0"}}), bad("dcache=0")},
		"recursive, writable":    {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", RecursiveReadOnly: true}), bad("recursively")},
		"recursive, rslave":      {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", RecursiveReadOnly: true, Readonly: true, Propagation: 1}), bad("recursively")},
		"recursive":              {mount(&runtimeapi.Mount{ContainerPath: "/a", HostPath: "/a", RecursiveReadOnly: true, Readonly: true}), ok},
		"over /dev":              {mount(at("/dev/")), anEngines},
		"over /proc/sys":         {mount(at("/proc/sys")), anEngines},
		"over /dev/shm":          {mount(at("/dev/shm")), ok},
		"over /processes":        {mount(at("/processes")), ok},
	} {
		t.Run(name, func(t *testing.T) {
			c := baseContainer()
			tc.change(c)
			tc.want.check(t, ValidateContainer(c, basePod()))
		})
	}
	bad("metadata").check(t, ValidateContainer(nil, nil))
}

// A container that says nothing about its network is welcome in any pod.
func TestValidateContainerInHostNetworkPod(t *testing.T) {
	pod := basePod()
	pod.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	want{}.check(t, ValidateContainer(baseContainer(), pod))
	c := baseContainer()
	c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	want{}.check(t, ValidateContainer(c, pod))
}
