package testenv

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// leak makes one thing of a kind that a daemon could leave behind.
var leak = map[string]func(t *testing.T, e *Env){
	"process": func(t *testing.T, e *Env) {
		// As a sandbox process runs: a staged program, whose arguments do not
		// betray it.
		prog := filepath.Join(e.Root, "bin", "sandbox")
		b, err := os.ReadFile("/bin/sleep")
		must(t, err)
		must(t, os.MkdirAll(filepath.Dir(prog), 0o755))
		must(t, os.WriteFile(prog, b, 0o755))
		cmd := exec.Command(prog, "600")
		cmd.Args[0] = "other-name"
		must(t, cmd.Start())
		go cmd.Wait()
	},
	"mount": func(t *testing.T, e *Env) {
		dir := filepath.Join(e.State, "netns")
		must(t, os.MkdirAll(dir, 0o755))
		must(t, unix.Mount("none", dir, "tmpfs", 0, ""))
	},
	"link": func(t *testing.T, e *Env) {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: e.Name}}
		must(t, netlink.LinkAdd(br))
		must(t, netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: e.Name + "v", MasterIndex: br.Index},
			PeerName:  e.Name + "p",
		}))
	},
	"lease": func(t *testing.T, e *Env) {
		dir := filepath.Join(e.LeaseDir, e.Name)
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, e.Subnet.Addr().Next().String()), []byte("id"), 0o644))
	},
	"rule": func(t *testing.T, e *Env) {
		// What the bridge plugin leaves when its DEL finds no address.
		iptables(t, "*nat\n:CNI-"+e.Name+" - [0:0]\n"+
			"-A POSTROUTING -s "+e.Subnet.Addr().Next().String()+"/32 -m comment --comment \"name: \\\"x\\\" id: \\\"y\\\"\" -j CNI-"+e.Name+"\n"+
			"-A CNI-"+e.Name+" -d "+e.Subnet.String()+" -j ACCEPT\nCOMMIT\n")
	},
	"chain": func(t *testing.T, e *Env) {
		// What it leaves when the rules are gone, of a pod that no client knows.
		must(t, e.made.watch(e.Root))
		pod := filepath.Join(e.Root, "pods", NewUID())
		must(t, os.Mkdir(pod, 0o700))
		must(t, os.Remove(pod))
		iptables(t, "*nat\n:"+chainName("", e.Name, filepath.Base(pod))+" - [0:0]\nCOMMIT\n")
	},
	"cgroup": func(t *testing.T, e *Env) {
		roots, err := cgroupRoots()
		must(t, err)
		if len(roots) == 0 {
			t.Skip("no cgroup file system")
		}
		must(t, os.MkdirAll(filepath.Join(roots[0], e.CgroupParent, "pod"), 0o755))
	},
	"state": func(t *testing.T, e *Env) {
		must(t, unix.Mkfifo(filepath.Join(e.State, "stdout"), 0o600))
	},
	"record": func(t *testing.T, e *Env) {
		must(t, os.MkdirAll(filepath.Join(e.Root, "pods", strings.Repeat("ab", 32)), 0o755))
	},
	"rootfs": func(t *testing.T, e *Env) {
		must(t, os.MkdirAll(filepath.Join(e.Root, "images", "rootfs", "key"), 0o755))
	},
}

func iptables(t *testing.T, script string) {
	t.Helper()
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		t.Skip("needs iptables")
	}
	cmd := exec.Command("iptables-restore", "--noflush", "--wait", "5")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("iptables-restore: %v: %s", err, bytes.TrimSpace(out))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bare(t *testing.T) *Env {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	e, err := New(context.Background(), Options{NoStart: true, NoImages: true})
	must(t, err)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, e.MarkBaseline())
	return e
}

// TestLeakIsFoundAndSwept makes each kind of leak, and wants the observation to
// name it, in its own kind, and Close to remove it.
func TestLeakIsFoundAndSwept(t *testing.T) {
	for kind, makeLeak := range leak {
		t.Run(kind, func(t *testing.T) {
			e := bare(t)
			makeLeak(t, e)
			o, err := e.Observe()
			must(t, err)
			if left := o.Since(e.baseline); len(o[kind]) <= len(e.baseline[kind]) {
				t.Errorf("leaked %s is not in %q", kind, left)
			}
			must(t, e.Close())
			o, err = e.Observe()
			must(t, err)
			if left := o.Since(e.baseline); len(left) > 0 {
				t.Errorf("after Close: %q", left)
			}
		})
	}
}

// TestAuditOfAnUntouchedNode wants silence where nothing happened.
func TestAuditOfAnUntouchedNode(t *testing.T) {
	e := bare(t)
	must(t, e.Audit(context.Background()))
}

// TestLeaksLeaveOutAnothersChain: the chains of environments side by side look alike.
func TestLeaksLeaveOutAnothersChain(t *testing.T) {
	other, e := bare(t), bare(t)
	leak["chain"](t, other)
	must(t, e.Audit(context.Background()))
	if left, err := other.left.firewall.orphanChains(); err != nil || len(left) != 1 {
		t.Errorf("its own environment sees %q, %v", left, err)
	}
}

func TestAuditComplains(t *testing.T) {
	e := bare(t)
	leak["state"](t, e)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // one look
	if err := e.Audit(ctx); err == nil || !strings.Contains(err.Error(), "state: "+e.State+"/stdout") {
		t.Errorf("audit says %v", err)
	}
}

func TestKindsHaveAScan(t *testing.T) {
	p := &footprint{}
	if got := p.scans(); len(got) != len(Kinds) {
		t.Fatalf("%d scans for %d kinds", len(got), len(Kinds))
	}
	for _, k := range Kinds {
		if p.scans()[k] == nil {
			t.Errorf("no scan for %s", k)
		}
	}
}

// TestFilesStaysOnItsFileSystem wants a container's root counted as one thing.
func TestFilesStaysOnItsFileSystem(t *testing.T) {
	e := bare(t)
	leak["mount"](t, e)
	inside := filepath.Join(e.State, "netns", "file")
	must(t, os.WriteFile(inside, nil, 0o644))
	got, err := files(e.State)
	must(t, err)
	if slices.Contains(got, inside) || !slices.Contains(got, filepath.Dir(inside)) {
		t.Errorf("got %q", got)
	}
}
