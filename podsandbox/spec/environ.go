package spec

import "strings"

// environment is, each overriding what is before it: PATH and, with a terminal,
// TERM; the image's; HOSTNAME; the request's. HOME is the user's unless one of
// them has set it.
func environment(in Input) []string {
	env := newEnviron(nil)
	env.set("PATH", defaultPath)
	if in.Container.GetTty() {
		env.set("TERM", "xterm")
	}
	for _, entry := range in.Image.Env {
		env.add(entry)
	}
	if in.Hostname != "" {
		env.set("HOSTNAME", in.Hostname)
	}
	for _, e := range in.Container.GetEnvs() {
		env.set(e.GetKey(), string(e.GetValue()))
	}
	home := in.User.Home
	if home == "" {
		home = "/"
	}
	env.setDefault("HOME", home)
	return env.strings()
}

// environ is a list of variables in which a name stands once, at the place where
// it was first set.
type environ struct {
	names  []string
	values map[string]string
}

func newEnviron(entries []string) *environ {
	e := &environ{values: map[string]string{}}
	for _, entry := range entries {
		e.add(entry)
	}
	return e
}

// add sets NAME=VALUE. An entry without a name or an equals sign, or with a NUL
// byte, sets nothing that a program could read, and is left out.
func (e *environ) add(entry string) {
	if name, value, ok := strings.Cut(entry, "="); ok && name != "" && !strings.ContainsRune(entry, 0) {
		e.set(name, value)
	}
}

func (e *environ) set(name, value string) {
	if _, known := e.values[name]; !known {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environ) setDefault(name, value string) {
	if _, known := e.values[name]; !known {
		e.set(name, value)
	}
}

func (e *environ) strings() []string {
	entries := make([]string, 0, len(e.names))
	for _, name := range e.names {
		entries = append(entries, name+"="+e.values[name])
	}
	return entries
}
