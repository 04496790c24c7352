package gvisor

import (
	"bytes"
	"encoding/json"
	"flag"
	"net"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files of the contract")

// The golden files are the contract between this package and gVisor's types: they
// hold what this package sends, and samples of what it reads. A test of the
// nested module decodes the same files into gVisor's types.
const contractDir = "testdata/contract"

// sent are requests, with every field set.
func sent() map[string]any {
	ip, mask := net.ParseIP("10.1.2.3").To4(), net.CIDRMask(24, 32)
	r := route{Destination: net.IPNet{IP: ip.Mask(mask), Mask: mask}, Gateway: ip, MTU: 1400}
	prefix := []ipPrefix{{Address: ip, PrefixLen: 24}}
	return map[string]any{
		"network": networkArgs{
			LoopbackLinks: []loopbackLink{{Name: "lo", Addresses: prefix, Routes: []route{r}}},
			FDBasedLinks: []packetLink{{
				Name: "eth0", InterfaceIndex: 2, MTU: 1500, Addresses: prefix, Routes: []route{r},
				GSOMaxSize: 65536, GVisorGSOEnabled: true, RXChecksumOffload: true,
				LinkAddress: net.HardwareAddr{2, 0, 0, 0, 0, 1}, QDisc: qdiscFIFO, NumChannels: 1,
				Neighbors: []neighbor{{IP: ip, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}}},
			}},
			Defaultv4Gateway: defaultRoute{Route: r, Name: "eth0"},
			Defaultv6Gateway: defaultRoute{Route: r, Name: "eth0"},
		},
		"create": createArgs{CID: "c"},
		"start": startArgs{
			Spec: &specs.Spec{
				Version: "1.2.1",
				Root:    &specs.Root{Path: "/root", Readonly: true},
				Process: &specs.Process{Args: []string{"sh"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}},
				Mounts:  []specs.Mount{{Destination: "/vol", Type: "bind", Source: "/src", Options: []string{"ro"}}},
				Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}}},
			},
			Conf: settingsOf(false).ofContainer(&preparedSpec{
				spec:           &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_NET_RAW"}}}},
				emptyProcFiles: []string{"meminfo", "stat"},
			}),
			CID:             "c",
			GoferMountConfs: []mountConf{{Lower: lowerLisafs, Upper: upperFile, Size: "4096,nr_inodes=7"}, {Lower: lowerErofs}, {Lower: lowerLisafs, Upper: upperMemory}},

			NumGoferFilestoreFDs: 1, IsRootfsUpperTarFilePresent: true,
		},
		"wait_pid": waitPIDArgs{PID: 7, CID: "c"},
		"signal":   signalArgs{CID: "c", Signo: 9, PID: 7, Mode: signalGroup},
		"exec": execArgs{
			Argv: []string{"sh"}, Envv: []string{"A=b"}, WorkingDirectory: "/", KUID: 1, KGID: 2, ExtraKGIDs: []uint32{3},
			NoNewPrivileges: true, StdioIsPty: true, GuestFDs: []int{0, 1, 2}, ContainerID: "c",
			Capabilities: &capabilityMasks{1, 2, 3, 4, 5},
		},
		"read_cgroup": cgroupReadArgs{Args: []cgroupReadArg{{File: cgroupFile{Controller: "memory", Path: "/c", Name: "memory.current"}}}},
		"read_file":   readFileArgs{ContainerID: "c", Path: "/proc/stat", Size: 1},
		"log":         logArgs{SetLevel: true, Level: "debug"},
		"heap":        heapArgs{Delay: 7},
		"profile":     profileArgs{Duration: 7},
		"settings":    settingsOf(true).flags(),
		"conf_flags":  confList([]mountConf{{Lower: lowerLisafs}, {Lower: lowerErofs}, {Lower: lowerLisafs, Upper: upperFile}}),
	}
}

// received are samples of results, with every field that is read.
func received() map[string]any {
	return map[string]any{
		"processes": []guestProcess{{PID: 7, PPID: 1, PGID: 7}},
		"debug_processes": []GuestProcess{{
			UID: 1, PID: 7, PPID: 1, Threads: []int32{7}, TTY: "?", STime: "14:04", Time: "1s", Cmd: "sh",
		}},
		"state_creating": guestStateCreating,
		"open_mount": openMountArgs{Mount: &specs.Mount{
			Destination: "/vol", Type: "bind", Source: "/src", Options: []string{"rbind", "ro"},
			UIDMappings: []specs.LinuxIDMapping{{HostID: 5, Size: 6}}, GIDMappings: []specs.LinuxIDMapping{{HostID: 7, Size: 8}},
		}, Flags: 1},
		"cgroup_results": cgroupResults{Results: []cgroupResult{{Data: "1", IsError: true}}},
	}
}

func TestContractOfTheControlSocket(t *testing.T) {
	all := sent()
	for name, v := range received() {
		all["result_"+name] = v
	}
	for name, v := range all {
		got, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		path := filepath.Join(contractDir, name+".json")
		if *update {
			if err := os.MkdirAll(contractDir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from what is sent (%v); run the test with -update, and the nested module's tests", path, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(contractDir, "*.json"))
	if err != nil || len(files) != len(all) {
		t.Errorf("%d golden files for %d types, %v", len(files), len(all), err)
	}
}
