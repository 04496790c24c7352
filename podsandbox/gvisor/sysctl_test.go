package gvisor

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/sysctl"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// withSockets is a root file system with the program of testdata/sockets.
func withSockets(t testing.TB) string {
	t.Helper()
	root := newRootfs(t)
	build := exec.Command("go", "build", "-o", filepath.Join(root, "bin", "sockets"), "./testdata/sockets")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return root
}

// unprivileged is a script of a user without any right, behind a read-only /proc/sys.
func unprivileged(root, script string) *specs.Spec {
	spec := shell(root, script)
	spec.Process.User = specs.User{UID: 1000, GID: 1000}
	spec.Process.Capabilities = nil
	spec.Linux.ReadonlyPaths = []string{"/proc/sys"}
	return spec
}

// TestSysctlsThatAreSafe: what a pod may ask for is what its sandbox does, and is what
// its containers read.
func TestSysctlsThatAreSafe(t *testing.T) {
	asked := map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "80",
		"net.ipv4.ping_group_range":           "1000 1000",
		"net.ipv4.tcp_keepalive_time":         "7200",
		"net.ipv4.tcp_keepalive_intvl":        "75",
		"net.ipv4.tcp_keepalive_probes":       "9",
		"net.ipv4.tcp_fin_timeout":            "60",
		"net.ipv4.tcp_syncookies":             "1",
		"net.ipv4.tcp_rmem":                   "4096 87380 6291456",
		"net.ipv4.tcp_wmem":                   "4096 65536 6291456",
		"net.ipv4.ip_local_port_range":        "20000 20100",
		"net.ipv4.ip_local_reserved_ports":    "8080,20000-20089",
		"net.core.somaxconn":                  "1024",
		"net.ipv4.tcp_timestamps":             "1", // a file that cannot be written
		"kernel.shm_rmid_forced":              "0",
	}
	if name, why, _ := sysctl.Check(asked); why != "" {
		t.Fatalf("%s: %s", name, why)
	}
	p := startPod(t, func(c *engine.Config) { c.Sysctls = asked })
	root := withSockets(t)
	script := ""
	for name := range asked {
		if name != "kernel.shm_rmid_forced" { // not shown
			script += fmt.Sprintf("echo %s = $(cat /proc/sys/%s)\n", name, sysctl.Path(name))
		}
	}
	out, _ := p.run(unprivileged(root, script))
	for name, value := range asked {
		if line := name + " = " + value + "\n"; name != "kernel.shm_rmid_forced" && !strings.Contains(out, line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	out, _ = p.run(unprivileged(root, "sockets bind 80; sockets ping; sockets defaults; sockets ephemeral 11"))
	if want := "bound 80\npinged\ndefaults 7200 75 9 60 87380 65536\nephemeral 20090 20100\n"; out != want {
		t.Errorf("sockets do %q, want %q", out, want)
	}
	out, _ = p.run(unprivileged(root, "sockets shm-make"))
	if out, _ = p.run(unprivileged(root, "sockets shm-read "+strings.TrimPrefix(strings.TrimSpace(out), "id "))); out != "read kept\n" {
		t.Errorf("of a segment without a process: %q", out)
	}
}

// TestSysctlsOfAPlainPod: a container reads what is so, also where the Sentry has no
// file, or another value.
func TestSysctlsOfAPlainPod(t *testing.T) {
	p := startPod(t)
	out, _ := p.run(unprivileged(newRootfs(t), `cd /proc/sys/net/ipv4
for f in ip_unprivileged_port_start ping_group_range tcp_syncookies tcp_fin_timeout tcp_keepalive_time tcp_keepalive_intvl tcp_keepalive_probes ip_local_reserved_ports; do
echo $f $(cat $f); done; cat /proc/sys/kernel/random/uuid | wc -c`))
	want := "ip_unprivileged_port_start 0\nping_group_range 0 2147483647\ntcp_syncookies 1\ntcp_fin_timeout 60\n" +
		"tcp_keepalive_time 7200\ntcp_keepalive_intvl 75\ntcp_keepalive_probes 9\nip_local_reserved_ports\n37\n"
	if out != want {
		t.Errorf("it reads\n%s", out)
	}
	// What the Sentry has of these itself is known not to be true.
	untrue := map[string]string{"net/ipv4/tcp_keepalive_intvl": "0", "net/ipv4/tcp_keepalive_probes": "0"}
	for name, shown := range sysctl.Shown(nil) {
		has, err := p.control.readFile(testContext(t), procSys+name)
		if isMissing(err) {
			continue
		}
		if got := strings.TrimSpace(string(has)); err != nil || got != strings.TrimSpace(shown) && got != untrue[name] {
			t.Errorf("%s holds %q (%v) in the Sentry, and is shown as %q", path.Base(name), got, err, shown)
		}
	}
}

// TestSysctlReservedPortsWithoutARange: the sandbox's own range makes room.
func TestSysctlReservedPortsWithoutARange(t *testing.T) {
	p := startPod(t, func(c *engine.Config) {
		c.Sysctls = map[string]string{"net/ipv4/ip_local_reserved_ports": "16000-30000"}
	})
	out, _ := p.run(unprivileged(newRootfs(t), "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_local_reserved_ports"))
	if out != "30001 65535\n16000-30000\n" {
		t.Errorf("it reads %q", out)
	}
}

// TestSysctlSYNCookies: a listener whose queue is full of connections that nobody completes
// still takes one, with a cookie: only such a handshake is without window scaling.
func TestSysctlSYNCookies(t *testing.T) {
	p := startPod(t)
	c := p.start(unprivileged(withSockets(t), "exec sockets backlog 8000"))
	c.waitFor(t, "listening")
	if !p.dialScaled(8000) {
		t.Fatal("a connection without window scaling before the queue is full")
	}
	flood := func() {
		if err := inNetNS(p.ns.host, func() error { return sendSYNs(8000, 200) }); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		flood()
		if p.dialScaled(8000) {
			return fmt.Errorf("no cookie is sent")
		}
		return nil
	})
}

// dialScaled connects from the node's side, is greeted, and tells whether windows are
// scaled.
func (p *pod) dialScaled(port int) bool {
	p.t.Helper()
	var scaled bool
	err := inNetNS(p.ns.host, func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		wait := unix.NsecToTimeval(int64(20 * time.Second))
		for _, opt := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
			if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, opt, &wait); err != nil {
				return err
			}
		}
		if err := unix.Connect(s, &unix.SockaddrInet4{Port: port, Addr: [4]byte(net.ParseIP(podIP).To4())}); err != nil {
			return err
		}
		greeting := make([]byte, 2)
		if n, err := unix.Read(s, greeting); err != nil || n == 0 {
			return fmt.Errorf("read %d: %w", n, io.ErrUnexpectedEOF)
		}
		info, err := unix.GetsockoptTCPInfo(s, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		const windowScale = 4 // TCPI_OPT_WSCALE
		scaled = info.Options&windowScale != 0
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return scaled
}

// sendSYNs sends n SYNs to the pod from addresses that answer nothing.
func sendSYNs(port, n int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	to := [4]byte(net.ParseIP(podIP).To4())
	for i := range n {
		from := [4]byte{to[0], to[1], to[2], byte(50 + i%200)}
		if err := unix.Sendto(s, synSegment(from, to, 30000+i, port), 0, &unix.SockaddrInet4{Addr: to}); err != nil {
			return err
		}
	}
	return nil
}

// synSegment is an IPv4 packet; the kernel completes the header.
func synSegment(from, to [4]byte, fromPort, toPort int) []byte {
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 4<<4|5, 64, unix.IPPROTO_TCP
	copy(ip[12:], from[:])
	copy(ip[16:], to[:])
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, uint16(fromPort))
	binary.BigEndian.PutUint16(tcp[2:], uint16(toPort))
	binary.BigEndian.PutUint32(tcp[4:], 1)
	tcp[12], tcp[13] = 5<<4, 2 // header of five words, SYN
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	pseudo := append(append([]byte{}, ip[12:20]...), 0, unix.IPPROTO_TCP, 0, byte(len(tcp)))
	sum := uint32(0)
	for b := append(pseudo, tcp...); len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return append(ip, tcp...)
}
