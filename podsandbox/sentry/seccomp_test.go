package main

import (
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	bootfilter "gvisor.dev/gvisor/runsc/boot/filter"
	bootconfig "gvisor.dev/gvisor/runsc/boot/filter/config"
	goferfilter "gvisor.dev/gvisor/runsc/fsgofer/filter"
	goferconfig "gvisor.dev/gvisor/runsc/fsgofer/filter/config"
)

// The registered programs are found under the options that boot and gofer ask
// for, and are what gVisor would compile.
func TestSeccompProgramsAreUsed(t *testing.T) {
	if len(bootPrograms) == 0 {
		t.Skip("no programs were generated: run go generate")
	}
	registerSeccompPrograms()
	systrap, err := platform.Lookup("systrap")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []bool{false, true} {
		o := bootconfig.Options{
			Platform: systrap.PrecompiledSeccompInfo()[0], HostFilesystem: true,
			HostNetwork: host, HostNetworkRawSockets: host, ControllerFD: 9,
		}
		p, ok := bootfilter.GetPrecompiled(o.ConfigKey())
		if !ok {
			t.Errorf("no program for %s", o.ConfigKey())
			continue
		}
		rules, deny := bootconfig.Rules(o)
		compare(t, p, o.Vars(), rules, deny, bootconfig.SeccompOptions(o))
	}
	o := goferconfig.Options{DirectFS: true}
	p, ok := goferfilter.GetPrecompiled(o.ConfigKey())
	if !ok {
		t.Fatalf("no program for %s", o.ConfigKey())
	}
	rules, deny := goferconfig.Rules(o)
	compare(t, p, o.Vars(), rules, deny, seccomp.ProgramOptions{})
}

func compare(t *testing.T, p precompiledseccomp.Program, vars precompiledseccomp.Values, rules, deny seccomp.SyscallRules, opts seccomp.ProgramOptions) {
	t.Helper()
	got, err := p.RenderInstructions(vars)
	if err != nil {
		t.Fatal(err)
	}
	program := seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: deny}, {Rules: rules, Action: seccomp.Allow}},
		Options:  opts,
	}
	want, _, err := program.Build()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(bpf.ToBytecode(got), bpf.ToBytecode(want)) {
		for i := range got {
			if got[i] != want[i] {
				t.Logf("%d: %v, want %v (%v)", i, got[i], want[i], vars)
			}
		}
		t.Errorf("%s: %d instructions differ from the %d that gVisor compiles", p.Name, len(got), len(want))
	}
}
