package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/control"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/container"
	"gvisor.dev/gvisor/runsc/specutils"
)

// The golden files that the daemon's package writes.
const contractDir = "../gvisor/testdata/contract"

func readContract(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(contractDir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decode[T any](t *testing.T, name string) T {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(readContract(t, name)))
	d.DisallowUnknownFields()
	var v T
	if err := d.Decode(&v); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return v
}

// Everything that the daemon sends is a field of gVisor's types, and arrives.
func TestContractOfRequests(t *testing.T) {
	network := decode[boot.CreateLinksAndRoutesArgs](t, "network")
	if l := network.FDBasedLinks[0]; l.QDisc != config.QDiscFIFO || l.NumChannels != 1 || !l.GVisorGSOEnabled || network.Defaultv4Gateway.Route.Empty() {
		t.Errorf("network: %+v", network)
	}
	if v := decode[boot.CreateArgs](t, "create"); v.CID != "c" {
		t.Errorf("create: %+v", v)
	}
	start := decode[boot.StartArgs](t, "start")
	if c := start.Conf; !c.DirectFS || c.DCache != -1 || c.FileAccessMounts != config.FileAccessShared || !c.OCISeccomp ||
		c.InSandboxCgroup != config.InSandboxCgroupV2 || c.HostFifo != config.HostFifoNone || c.OverrideProcs != "meminfo,stat" {
		t.Errorf("conf: %+v", c)
	}
	if g := start.GoferMountConfs; len(g) != 3 || !g[0].ShouldUseLisafs() || !g[0].IsFilestorePresent() || g[0].IsSelfBacked() || g[0].Size != "4096,nr_inodes=7" ||
		!g[1].ShouldUseErofs() || !g[2].ShouldUseOverlayfs() || g[2].IsFilestorePresent() {
		t.Errorf("mounts: %v", g)
	}
	if start.NumGoferFilestoreFDs != 1 || !start.IsRootfsUpperTarFilePresent {
		t.Errorf("start: %+v", start)
	}
	if v := decode[boot.WaitPIDArgs](t, "wait_pid"); v.PID != 7 || v.CID != "c" {
		t.Errorf("wait: %+v", v)
	}
	if v := decode[boot.SignalArgs](t, "signal"); v.Mode != boot.DeliverToProcessGroup || v.PID != 7 {
		t.Errorf("signal: %+v", v)
	}
	exec := decode[control.ExecArgs](t, "exec")
	if exec.KUID != 1 || len(exec.GuestFDs) != 3 || exec.Capabilities.AmbientCaps != 5 || !exec.StdioIsPty {
		t.Errorf("exec: %+v", exec)
	}
	if v := decode[control.CgroupsReadArgs](t, "read_cgroup"); v.Args[0].File.Name != "memory.current" {
		t.Errorf("read cgroup: %+v", v)
	}
	if v := decode[control.ReadOpts](t, "read_file"); v.Path != "/proc/stat" || v.Size != 1 {
		t.Errorf("read file: %+v", v)
	}
	if v := decode[control.LoggingArgs](t, "log"); !v.SetLevel || v.Level != log.Debug {
		t.Errorf("log: %+v", v)
	}
	if v := decode[control.HeapProfileOpts](t, "heap"); v.Delay != 7 {
		t.Errorf("heap: %+v", v)
	}
	if cpu, trace := decode[control.CPUProfileOpts](t, "profile"), decode[control.TraceProfileOpts](t, "profile"); cpu.Duration != 7 || trace.Duration != 7 {
		t.Errorf("profile: %+v, %+v", cpu, trace)
	}
	var confs specutils.GoferMountConfFlags
	if err := confs.Set(decode[string](t, "conf_flags")); err != nil || len(confs) != 3 || !confs[1].ShouldUseErofs() || confs[0].ShouldUseOverlayfs() || !confs[2].ShouldUseOverlayfs() {
		t.Errorf("conf flags: %v, %v", confs, err)
	}
}

// What a container is started with is what the Sentry and the gofers were started with,
// but for what each container has of its own.
func TestContractOfSettings(t *testing.T) {
	flags := flag.NewFlagSet("settings", flag.ContinueOnError)
	config.RegisterFlags(flags)
	if err := flags.Parse(decode[[]string](t, "settings")); err != nil || flags.NArg() > 0 {
		t.Fatalf("%v, %q are no flags", err, flags.Args())
	}
	conf, err := config.NewFromFlags(flags)
	if err != nil {
		t.Fatal(err)
	}
	if !conf.AllowSUID || conf.Network != config.NetworkHost {
		t.Errorf("flags: %+v", conf)
	}
	var start struct{ Conf map[string]any }
	if err := json.Unmarshal(readContract(t, "start"), &start); err != nil {
		t.Fatal(err)
	}
	delete(start.Conf, "EnableRaw")
	delete(start.Conf, "OverrideProcs")
	b, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	var byFlags map[string]any
	if err := json.Unmarshal(b, &byFlags); err != nil {
		t.Fatal(err)
	}
	for name, value := range start.Conf {
		if !reflect.DeepEqual(byFlags[name], value) {
			t.Errorf("%s: flags say %v, a container's start %v", name, byFlags[name], value)
		}
	}
}

// All that the daemon reads of a result is in gVisor's result: what it keeps of a
// sample is kept by gVisor's type, too.
func TestContractOfResults(t *testing.T) {
	roundTrip[[]*control.Process](t, "result_processes")
	roundTrip[[]*control.Process](t, "result_debug_processes")
	roundTrip[control.CgroupsResults](t, "result_cgroup_results")
	roundTrip[container.OpenMountArgs](t, "result_open_mount")
	if v := decode[boot.ContainerRuntimeState](t, "result_state_creating"); v != boot.RuntimeStateCreating {
		t.Errorf("state: %d", v)
	}
}

func roundTrip[T any](t *testing.T, name string) {
	t.Helper()
	b, err := json.Marshal(decode[T](t, name))
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if json.Unmarshal(b, &got) != nil || json.Unmarshal(readContract(t, name), &want) != nil {
		t.Fatalf("%s is no JSON", name)
	}
	if !contains(got, want) {
		t.Errorf("%s: gVisor sends %v, the daemon reads %v", name, got, want)
	}
}

// contains reports whether all of want is in got.
func contains(got, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		for k, v := range w {
			ok = ok && contains(g[k], v)
		}
		return ok
	case []any:
		g, ok := got.([]any)
		ok = ok && len(g) == len(w)
		for i := range w {
			ok = ok && contains(g[i], w[i])
		}
		return ok
	}
	return reflect.DeepEqual(got, want)
}
