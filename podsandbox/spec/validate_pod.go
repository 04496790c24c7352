package spec

import (
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/sysctl"
)

// maxHostname is the kernel's limit, __NEW_UTS_LEN.
const maxHostname = 64

var (
	// A dot at the end is of a full name in the DNS, which the kubelet sends for
	// setHostnameAsFQDN where it has no cluster domain.
	hostnameForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$`)
	sysctlForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_][A-Za-z0-9_-]*)+$`)
)

func podMetadata(c *runtimeapi.PodSandboxConfig) error {
	m := c.GetMetadata()
	if m == nil {
		return invalidf("pod config has no metadata; send name, namespace and uid")
	}
	for _, f := range []struct{ field, value string }{
		{"name", m.GetName()}, {"namespace", m.GetNamespace()}, {"uid", m.GetUid()},
	} {
		if err := checkName("pod metadata "+f.field, f.value); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses what could not be one component of a path or one line of a log.
func checkName(what, name string) error {
	switch {
	case name == "":
		return invalidf("%s is empty", what)
	case name == "." || name == ".." || strings.Contains(name, "/"):
		return invalidf("%s %q must not be a path", what, name)
	case strings.ContainsFunc(name, isControl):
		return invalidf("%s %q must not contain control characters", what, name)
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

func podHostname(c *runtimeapi.PodSandboxConfig) error {
	h := c.GetHostname()
	switch {
	case h == "": // the caller picks one, see Hostname
		return nil
	case len(h) > maxHostname:
		return invalidf("hostname %q is longer than %d characters", h, maxHostname)
	case !hostnameForm.MatchString(h):
		return invalidf("hostname %q must consist of letters, digits, '-', '_' and '.', begin with a letter or digit, and end with one or with one '.'", h)
	}
	return nil
}

func podLogDirectory(c *runtimeapi.PodSandboxConfig) error {
	d := c.GetLogDirectory()
	if d == "" {
		return nil
	}
	return checkAbs("log directory", d)
}

// checkAbs accepts an absolute path without ".." components.
// MaxPath is how long a path can be, in bytes; PATH_MAX of limits.h, less its end.
// Longer ones would cost what looks them up part by part more than any is worth.
const MaxPath = 4095

func checkAbs(what, p string) error {
	switch {
	case len(p) > MaxPath:
		return invalidf("%.200s has %d bytes, a path has at most %d", what, len(p), MaxPath)
	case !path.IsAbs(p):
		return invalidf("%s %q must be absolute", what, p)
	case slices.Contains(strings.Split(p, "/"), ".."):
		return invalidf(`%s %q must not contain ".."`, what, p)
	case strings.ContainsRune(p, 0):
		return invalidf("%s %q must not contain a NUL byte", what, p)
	}
	return nil
}

// podDNS keeps every entry on its own line of resolv.conf.
func podDNS(c *runtimeapi.PodSandboxConfig) error {
	d := c.GetDnsConfig()
	for _, s := range d.GetServers() {
		if _, err := netip.ParseAddr(s); err != nil {
			return invalidf("DNS server %q is not an IP address", s)
		}
	}
	for _, s := range slices.Concat(d.GetSearches(), d.GetOptions()) {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return isControl(r) || r == ' ' }) {
			return invalidf("DNS search domain or option %q must be one word", s)
		}
	}
	return nil
}

func podPorts(c *runtimeapi.PodSandboxConfig) error {
	type endpoint struct {
		protocol runtimeapi.Protocol
		host     netip.Addr
		port     int32
	}
	taken := map[endpoint]bool{}
	for _, p := range c.GetPortMappings() {
		if _, known := runtimeapi.Protocol_name[int32(p.GetProtocol())]; !known {
			return invalidf("port mapping has the unknown protocol %d", p.GetProtocol())
		}
		if p.GetContainerPort() < 0 || p.GetContainerPort() > 65535 || p.GetHostPort() < 0 || p.GetHostPort() > 65535 {
			return invalidf("port mapping %d to %d is outside 0–65535", p.GetHostPort(), p.GetContainerPort())
		}
		var host netip.Addr // the zero value stands for all addresses
		if p.GetHostIp() != "" {
			var err error
			if host, err = netip.ParseAddr(p.GetHostIp()); err != nil {
				return invalidf("port mapping has the host IP %q, which is not an IP address", p.GetHostIp())
			}
		}
		if p.GetHostPort() == 0 {
			continue
		}
		if p.GetContainerPort() == 0 {
			return invalidf("host port %d is mapped to no container port", p.GetHostPort())
		}
		e := endpoint{p.GetProtocol(), host, p.GetHostPort()}
		if taken[e] {
			return invalidf("host port %d/%s is mapped twice", p.GetHostPort(), p.GetProtocol())
		}
		taken[e] = true
	}
	return nil
}

func podWindows(c *runtimeapi.PodSandboxConfig) error {
	if c.GetWindows() != nil {
		return invalidf("pod config is for Windows; this node runs Linux")
	}
	return nil
}

func podCgroupParent(c *runtimeapi.PodSandboxConfig) error {
	p := c.GetLinux().GetCgroupParent()
	if slices.Contains(strings.Split(p, "/"), "..") || strings.ContainsFunc(p, isControl) {
		return invalidf(`cgroup parent %q must be a cgroup path or a slice name, without ".."`, p)
	}
	return nil
}

// podSysctlNames also refuses what would change the host.
func podSysctlNames(c *runtimeapi.PodSandboxConfig) error {
	sysctls := c.GetLinux().GetSysctls()
	files := map[string]string{}
	for _, name := range sortedKeys(sysctls) {
		path := sysctl.Path(name)
		switch {
		case !sysctlForm.MatchString(name):
			return invalidf("sysctl %q is not a sysctl name", name)
		case strings.ContainsFunc(sysctls[name], func(r rune) bool { return isControl(r) && r != '\t' }):
			return invalidf("sysctl %s has a value with control characters", name)
		case HostNetwork(c) && strings.HasPrefix(path, "net/"):
			return invalidf("sysctl %s cannot be set in a pod on the host's network", name)
		case files[path] != "":
			return invalidf("sysctl %s is given twice, also as %s", name, files[path])
		}
		files[path] = name
	}
	return nil
}
