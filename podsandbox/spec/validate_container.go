package spec

import (
	"path"
	"slices"
	"strings"
)

func containerMetadata(r containerRequest) error {
	if r.GetMetadata() == nil {
		return invalidf("container config has no metadata; send a name")
	}
	return checkName("container metadata name", r.GetMetadata().GetName())
}

func containerImage(r containerRequest) error {
	if r.GetImage().GetImage() == "" {
		return invalidf("container %s names no image", r.GetMetadata().GetName())
	}
	return nil
}

// containerCommand covers all strings that end up in the process itself.
func containerCommand(r containerRequest) error {
	for _, s := range slices.Concat(r.GetCommand(), r.GetArgs()) {
		if strings.ContainsRune(s, 0) {
			return invalidf("argument %q must not contain a NUL byte", s)
		}
	}
	if wd := r.GetWorkingDir(); wd != "" && (!path.IsAbs(wd) || strings.ContainsRune(wd, 0)) {
		return invalidf("working directory %q must be absolute", wd)
	}
	return nil
}

func containerEnv(r containerRequest) error {
	for _, e := range r.GetEnvs() {
		if e.GetKey() == "" || strings.ContainsAny(e.GetKey(), "=\x00") {
			return invalidf("environment variable name %q must not be empty or contain '=' or NUL", e.GetKey())
		}
		if slices.Contains(e.GetValue(), 0) {
			return invalidf("environment variable %s must not contain a NUL byte", e.GetKey())
		}
	}
	return nil
}

// containerLogPath keeps the log below the pod's log directory.
func containerLogPath(r containerRequest) error {
	p := r.GetLogPath()
	switch {
	case p == "":
		return nil
	case path.IsAbs(p):
		return invalidf("log path %q must be relative to the pod's log directory", p)
	case path.Clean(p) == "." || slices.Contains(strings.Split(p, "/"), ".."):
		return invalidf("log path %q must name a file below the pod's log directory", p)
	case strings.ContainsFunc(p, isControl):
		return invalidf("log path %q must not contain control characters", p)
	}
	return nil
}

func containerStopSignal(r containerRequest) error {
	_, err := requestSignal(r.GetStopSignal())
	return err
}

func containerWindows(r containerRequest) error {
	if r.GetWindows() != nil {
		return invalidf("container config is for Windows; this node runs Linux")
	}
	return nil
}

// containerDevices checks the form; Devices looks at the host.
func containerDevices(r containerRequest) error {
	for _, d := range r.GetDevices() {
		if err := checkAbs("device", d.GetHostPath()); err != nil {
			return err
		}
		if err := checkAbs("place of device "+d.GetHostPath(), d.GetContainerPath()); err != nil {
			return err
		}
		if strings.Trim(d.GetPermissions(), "rwm") != "" {
			return invalidf("device %s has the permissions %q; known are r, w and m", d.GetHostPath(), d.GetPermissions())
		}
	}
	return nil
}
