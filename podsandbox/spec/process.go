package spec

import (
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// OpenFiles is the limit of open files in every container, soft and hard. It is
// stated because the engine would pass on what the daemon happens to have.
const OpenFiles = 1 << 20

func process(in Input) (*specs.Process, error) {
	args, err := commandLine(in.Container, in.Image)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(in.security().GetCapabilities(), in.User.UID)
	if err != nil {
		return nil, err
	}
	return &specs.Process{
		Terminal:        in.Container.GetTty(),
		User:            in.User.oci(),
		Args:            args,
		Env:             environment(in),
		Cwd:             workingDir(in.Container, in.Image),
		Capabilities:    caps,
		Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: OpenFiles, Soft: OpenFiles}},
		NoNewPrivileges: in.security().GetNoNewPrivs(),
		OOMScoreAdj:     oomScoreAdj(in.Container.GetLinux().GetResources()),
	}, nil
}

// Exec makes a process that joins the container of spec: same user, environment,
// capabilities, limits and working directory, another command. The result shares
// no memory with spec. An empty command is ErrInvalidArgument.
func Exec(spec *specs.Spec, cmd []string, tty bool) (*specs.Process, error) {
	if len(cmd) == 0 || cmd[0] == "" {
		return nil, invalidf("no command specified to execute")
	}
	for _, arg := range cmd {
		if strings.ContainsRune(arg, 0) {
			return nil, invalidf("argument %q must not contain a NUL byte", arg)
		}
	}
	if spec == nil || spec.Process == nil {
		return nil, invalidf("container has no process to execute %s beside", cmd[0])
	}
	p := *spec.Process
	p.Args = slices.Clone(cmd)
	p.Terminal = tty
	p.ConsoleSize = nil
	p.User.AdditionalGids = slices.Clone(p.User.AdditionalGids)
	p.Rlimits = slices.Clone(p.Rlimits)
	env := newEnviron(p.Env)
	if tty {
		env.setDefault("TERM", "xterm")
	}
	p.Env = env.strings()
	if c := p.Capabilities; c != nil {
		p.Capabilities = &specs.LinuxCapabilities{
			Bounding: slices.Clone(c.Bounding), Effective: slices.Clone(c.Effective), Inheritable: slices.Clone(c.Inheritable),
			Permitted: slices.Clone(c.Permitted), Ambient: slices.Clone(c.Ambient),
		}
	}
	return &p, nil
}

// commandLine follows Kubernetes: a command replaces the image's entrypoint and
// drops its cmd; args replace cmd alone.
func commandLine(c *runtimeapi.ContainerConfig, image ocispec.ImageConfig) ([]string, error) {
	command, args := c.GetCommand(), c.GetArgs()
	if len(command) == 0 {
		command = image.Entrypoint
		if slices.Equal(command, []string{""}) { // the way to unset an entrypoint in a build file
			command = nil
		}
		if len(args) == 0 {
			args = image.Cmd
		}
	}
	line := slices.Concat(command, args)
	if len(line) == 0 || line[0] == "" {
		return nil, invalidf("no command specified for container %s: neither the request nor the image has one", c.GetMetadata().GetName())
	}
	return line, nil
}

// workingDir is cleaned; images are known to hold relative ones.
func workingDir(c *runtimeapi.ContainerConfig, image ocispec.ImageConfig) string {
	dir := c.GetWorkingDir()
	if dir == "" {
		dir = image.WorkingDir
	}
	return path.Join("/", dir)
}

func oomScoreAdj(res *runtimeapi.LinuxContainerResources) *int {
	if res == nil {
		return nil
	}
	adj := int(res.GetOomScoreAdj())
	return &adj
}
