package main

import (
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	bootfilter "gvisor.dev/gvisor/runsc/boot/filter"
	goferfilter "gvisor.dev/gvisor/runsc/fsgofer/filter"
)

//go:generate sh -c "go run ./genseccomp > seccomp_generated.go.new && mv seccomp_generated.go.new seccomp_generated.go"

// The filters that Sentry and gofer install on themselves, compiled at build time
// by genseccomp. They are empty if it was not run; then, and for options that are
// not among them, a filter is compiled at each start, which costs milliseconds
// and memory and gives the same filter.
var bootPrograms, goferPrograms []precompiledseccomp.Program

// gVisor fills these tables from code that its own build generates. As a Go
// module it comes with empty ones and with no way to add to them, hence the
// linknames. TestSeccompProgramsAreUsed fails if a later version renames them.

//go:linkname bootTable gvisor.dev/gvisor/runsc/boot/filter.precompiledPrograms
var bootTable map[string]precompiledseccomp.Program

//go:linkname goferTable gvisor.dev/gvisor/runsc/fsgofer/filter.precompiledPrograms
var goferTable map[string]precompiledseccomp.Program

// registerSeccompPrograms hands the programs to gVisor's tables. It is called
// before any other goroutine runs.
func registerSeccompPrograms() {
	// Listing makes the tables; from then on they are only read.
	bootfilter.ListPrecompiled()
	goferfilter.ListPrecompiled()
	for _, p := range bootPrograms {
		bootTable[p.Name] = p
	}
	for _, p := range goferPrograms {
		goferTable[p.Name] = p
	}
}
