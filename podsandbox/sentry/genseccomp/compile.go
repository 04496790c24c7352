package main

import (
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap" // registers the platform
	bootconfig "gvisor.dev/gvisor/runsc/boot/filter/config"
	goferconfig "gvisor.dev/gvisor/runsc/fsgofer/filter/config"
)

// gVisor's own generator compiles every combination of options, which takes
// minutes; these are what it compiles them from.

//go:linkname bootRules gvisor.dev/gvisor/runsc/boot/filter/config.rules
func bootRules(bootconfig.Options, precompiledseccomp.Values) (seccomp.SyscallRules, seccomp.SyscallRules)

//go:linkname goferRules gvisor.dev/gvisor/runsc/fsgofer/filter/config.rules
func goferRules(goferconfig.Options, precompiledseccomp.Values) (seccomp.SyscallRules, seccomp.SyscallRules)

// compiled are programs by the name of their table, as compiled by a process.
type compiled struct {
	PID    int
	Tables map[string][]precompiledseccomp.Program
}

// compileAll compiles for what is in use: the systrap platform, directfs, the
// sandbox's own network or the host's with raw sockets; no device proxies, no cgo.
func compileAll() compiled {
	systrap, err := platform.Lookup("systrap")
	if err != nil {
		log.Fatal(err)
	}
	c := compiled{PID: os.Getpid(), Tables: map[string][]precompiledseccomp.Program{}}
	for _, host := range []bool{false, true} {
		o := bootconfig.Options{
			Platform: systrap.PrecompiledSeccompInfo()[0], HostFilesystem: true,
			HostNetwork: host, HostNetworkRawSockets: host,
		}
		c.add("bootPrograms", o.ConfigKey(), o.Vars(), func(v precompiledseccomp.Values) *seccomp.Program {
			rules, deny := bootRules(o, v)
			return program(rules, deny, bootconfig.SeccompOptions(o))
		})
	}
	o := goferconfig.Options{DirectFS: true}
	c.add("goferPrograms", o.ConfigKey(), o.Vars(), func(v precompiledseccomp.Values) *seccomp.Program {
		rules, deny := goferRules(o, v)
		return program(rules, deny, seccomp.ProgramOptions{})
	})
	return c
}

func program(rules, deny seccomp.SyscallRules, o seccomp.ProgramOptions) *seccomp.Program {
	return &seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: deny.Copy()}, {Rules: rules.Copy(), Action: seccomp.Allow}},
		Options:  o,
	}
}

func (c *compiled) add(table, key string, vars precompiledseccomp.Values, fn func(precompiledseccomp.Values) *seccomp.Program) {
	p, err := precompiledseccomp.Precompile(key, slices.Collect(maps.Keys(vars)), fn)
	if err != nil {
		log.Fatalf("compile program %s: %v", key, err)
	}
	c.Tables[table] = append(c.Tables[table], p)
}

// pidVar is gVisor's variable for the low half of the pid of the process that the
// program is for.
const pidVar = "self_pid_low32bits"

// freePID makes a variable of the compiler's pid. The systrap platform's rules
// use their process's pid without going through gVisor's variable for it, so a
// precompiled program would name a pid of the build. Where the programs of two
// processes differ, and by their pids, there is such a place.
func freePID(p *precompiledseccomp.Program, other precompiledseccomp.Program, pid, otherPID int) error {
	if len(p.Bytecode32) != len(other.Bytecode32) {
		return fmt.Errorf("two processes compile %d and %d words", len(p.Bytecode32), len(other.Bytecode32))
	}
	for i, word := range p.Bytecode32 {
		o := other.Bytecode32[i]
		if word == o {
			continue
		}
		if word != uint32(pid) || o != uint32(otherPID) {
			return fmt.Errorf("word %d differs between two processes: %d and %d", i, word, o)
		}
		p.VarOffsets[pidVar] = append(p.VarOffsets[pidVar], i)
	}
	return nil
}
