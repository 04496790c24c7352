package preflight

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/network"
)

// healthy is a node in a directory of the test.
func healthy(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"),
		Listen: filepath.Join(dir, "cri.sock"), StreamAddress: "127.0.0.1",
	}
	conf := filepath.Join(dir, "net.d")
	bin := filepath.Join(dir, "bin")
	for _, d := range []string{o.Root, o.State, conf, bin} {
		if err := os.Mkdir(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(conf, "10-n.conflist"), `{"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "fits"}]}`, 0o644)
	write(t, filepath.Join(bin, "fits"), "#!/bin/sh\ncat >/dev/null\necho '{\"cniVersion\": \"1.1.0\", \"supportedVersions\": [\"1.0.0\", \"1.1.0\"]}'\n", 0o755)
	write(t, filepath.Join(bin, "old"), "#!/bin/sh\ncat >/dev/null\necho '{\"cniVersion\": \"0.4.0\", \"supportedVersions\": [\"0.4.0\"]}'\n", 0o755)
	write(t, filepath.Join(bin, "mute"), "#!/bin/sh\ncat >/dev/null\n", 0o755)
	var err error
	o.CNI, err = network.NewCNI(network.Options{ConfDir: conf, BinDirs: []string{bin}, CacheDir: filepath.Join(o.Root, "cni")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.CNI.Close)
	return o
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// plugins replaces the network's plugins.
func plugins(t *testing.T, o Options, list string) {
	t.Helper()
	conf := filepath.Join(filepath.Dir(o.Root), "net.d", "10-n.conflist")
	write(t, conf, `{"cniVersion": "1.1.0", "name": "n", "plugins": [`+list+`]}`, 0o644)
}

// tmpfs mounts one on a directory for the time of the test.
func tmpfs(t *testing.T, dir string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// TestFindings breaks one thing at a time. Each check must be quiet on the healthy
// node and speak on the broken one.
func TestFindings(t *testing.T) {
	needsRoot(t)
	for _, c := range []struct {
		name  string
		check func(context.Context, Options) []Finding
		spoil func(t *testing.T, o *Options)
		want  Level
		says  string
	}{
		{"open root", directories, func(t *testing.T, o *Options) { os.Chmod(o.Root, 0o777) }, Error, "changed by others"},
		{"foreign state", directories, func(t *testing.T, o *Options) { os.Chown(o.State, 1000, 0) }, Error, "uid 1000"},
		{"root is a file", directories, func(t *testing.T, o *Options) {
			o.Root = filepath.Join(o.Root, "f")
			write(t, o.Root, "", 0o600)
		}, Error, "is no directory"},
		{"noexec", boot, func(t *testing.T, o *Options) { tmpfs(t, o.Root, unix.MS_NOEXEC, "mode=711") }, Error, "noexec"},
		{"no overlay upper", overlay, func(t *testing.T, o *Options) { o.Root = "/proc" }, Error, "overlay"},
		{"little space", space, func(t *testing.T, o *Options) { tmpfs(t, o.State, 0, "size=64m") }, Warning, "MiB free"},
		{"no space", space, func(t *testing.T, o *Options) { tmpfs(t, o.Root, 0, "size=1m") }, Error, "at least"},
		{"read-only", space, func(t *testing.T, o *Options) { tmpfs(t, o.Root, unix.MS_RDONLY, "") }, Error, "read-only"},
		{"no network", networking, func(t *testing.T, o *Options) {
			os.RemoveAll(filepath.Join(filepath.Dir(o.Root), "net.d"))
		}, Error, "no network is configured"},
		{"missing plugin", networking, func(t *testing.T, o *Options) { plugins(t, *o, `{"type": "fits"}, {"type": "gone"}`) }, Error, "gone is not in"},
		{"missing address manager", networking, func(t *testing.T, o *Options) {
			plugins(t, *o, `{"type": "fits", "ipam": {"type": "gone"}}`)
		}, Error, "gone is not in"},
		{"old plugin", networking, func(t *testing.T, o *Options) { plugins(t, *o, `{"type": "old"}`) }, Error, "does not know version 1.1.0"},
		{"mute plugin", networking, func(t *testing.T, o *Options) { plugins(t, *o, `{"type": "mute"}`) }, Error, "mute"},
		{"no firewall", firewall, func(t *testing.T, o *Options) {
			plugins(t, *o, `{"type": "portmap"}`)
			t.Setenv("PATH", t.TempDir())
		}, Error, "neither iptables nor nft"},
		{"masquerade", firewall, func(t *testing.T, o *Options) {
			plugins(t, *o, `{"type": "bridge", "ipMasq": true}`)
			t.Setenv("PATH", t.TempDir())
		}, Error, "neither iptables nor nft"},
		{"stale socket", socket, func(t *testing.T, o *Options) { staleSocket(t, o.Listen) }, Warning, "is gone"},
		{"socket for all", socket, func(t *testing.T, o *Options) {
			listen(t, o.Listen)
			os.Chmod(o.Listen, 0o666)
		}, Error, "everybody"},
		{"no socket", socket, func(t *testing.T, o *Options) { write(t, o.Listen, "", 0o600) }, Error, "is no socket"},
		{"port taken", streaming, func(t *testing.T, o *Options) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			o.StreamPort = l.Addr().(*net.TCPAddr).Port
		}, Error, "in use"},
		{"address of another node", streaming, func(t *testing.T, o *Options) { o.StreamAddress = "192.0.2.1" }, Error, "192.0.2.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := healthy(t)
			for _, f := range c.check(t.Context(), o) {
				if f.Level == Error {
					t.Fatalf("on a healthy node: %+v", f)
				}
			}
			c.spoil(t, &o)
			for _, f := range c.check(t.Context(), o) {
				if f.Level == c.want && strings.Contains(f.Message, c.says) && f.Mend != "" {
					return
				}
			}
			t.Errorf("findings %+v, want a %s that says %q", c.check(t.Context(), o), c.want, c.says)
		})
	}
}

func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// staleSocket leaves a socket's file without its owner.
func staleSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

// TestRunHasAnAnswerOfEachCheck: no check may be silent, or speak without a mend.
func TestRunHasAnAnswerOfEachCheck(t *testing.T) {
	needsRoot(t)
	seen := map[string]bool{}
	for _, f := range Run(t.Context(), healthy(t)) {
		seen[f.Check] = true
		if f.Level != OK && f.Mend == "" {
			t.Errorf("no mend: %+v", f)
		}
	}
	if len(seen) != 17 {
		t.Errorf("%d checks answered: %v", len(seen), seen)
	}
}

func TestReadyIsWithoutErrors(t *testing.T) {
	if !Ready(append(good("a"), warn("m", "b")...)) {
		t.Error("a warning is no reason")
	}
	if Ready(append(good("a"), bad("m", "b")...)) {
		t.Error("an error is")
	}
}

func TestParseRelease(t *testing.T) {
	for release, want := range map[string][2]int{
		"6.1.0-13-amd64": {6, 1}, "5.10.102+": {5, 10}, "6.18-rc1": {6, 18}, "garbage": {},
	} {
		if major, minor := parseRelease(release); major != want[0] || minor != want[1] {
			t.Errorf("%s: %d.%d", release, major, minor)
		}
	}
}
