package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPauseIsSmall(t *testing.T) {
	if n := len(Pause()); n > 1024 {
		t.Errorf("pause has %d bytes, want under 1 KiB", n)
	}
	image, err := RootImage()
	if err != nil {
		t.Fatal(err)
	}
	if len(image) != 8192 {
		t.Errorf("root image has %d bytes, want 8 KiB", len(image))
	}
}

func TestProgramsAreELF(t *testing.T) {
	for name, program := range map[string][]byte{
		"pause": Pause(), "set files": SetFiles(), "connect": Connect(80), "count inodes": CountInodes(),
		"count descriptors": CountDescriptors(), "set cgroup": SetCgroup(), "gate": Gate(), "mounts": Mounts(),
		"set hostname": SetHostname(),
	} {
		f, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f.Machine != elf.EM_X86_64 || len(f.Progs) != 1 || f.Progs[0].Filesz != uint64(len(program)) {
			t.Errorf("%s: %+v", name, f.FileHeader)
		}
	}
}

func TestCountInodes(t *testing.T) {
	program := filepath.Join(t.TempDir(), "count-inodes")
	if err := os.WriteFile(program, CountInodes(), 0o755); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "/dev/shm", "/no/such/path", "/dev/shm").Output()
	if err != nil || len(out) != 24 {
		t.Fatalf("%x, %v", out, err)
	}
	for i, want := range []uint64{st.Files - st.Ffree, math.MaxUint64, st.Files - st.Ffree} {
		if got := binary.LittleEndian.Uint64(out[i*8:]); got != want {
			t.Errorf("path %d: %d, want %d", i, got, want)
		}
	}
}

func TestCountDescriptors(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "count-descriptors")
	if err := os.WriteFile(program, CountDescriptors(), 0o755); err != nil {
		t.Fatal(err)
	}
	// What is like /proc/PID/fd, with more entries than fit into one answer of the kernel.
	links := map[string]int{"socket:[7]": 3, "/socket:[7]": 2, "pipe:[7]": 9000, "socket:": 1, "socket:[": 1}
	fds := filepath.Join(dir, "fd")
	if err := os.Mkdir(fds, 0o700); err != nil {
		t.Fatal(err)
	}
	n := 0
	for to, times := range links {
		for range times {
			if err := os.Symlink(to, filepath.Join(fds, strconv.Itoa(n))); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	empty := t.TempDir()
	out, err := exec.Command(program, fds, "/no/such/path", program, empty, fds).Output()
	if err != nil || len(out) != 5*16 {
		t.Fatalf("%x, %v", out, err)
	}
	for i, want := range [][2]uint64{{9007, 4}, {math.MaxUint64, 0}, {math.MaxUint64, 0}, {0, 0}, {9007, 4}} {
		got := [2]uint64{binary.LittleEndian.Uint64(out[i*16:]), binary.LittleEndian.Uint64(out[i*16+8:])}
		if got != want {
			t.Errorf("path %d: %d, want %d", i, got, want)
		}
	}
}

// The program runs on Linux as in the Sentry.
func TestSetFiles(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "set-files")
	if err := os.WriteFile(program, SetFiles(), 0o755); err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, f := range []string{a, b} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := exec.Command(program, a, "one", b, strings.Repeat("two", 1000)).Run(); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[string]string{a: "one", b: strings.Repeat("two", 1000)} {
		if got, _ := os.ReadFile(f); string(got) != want {
			t.Errorf("%s holds %q", f, got)
		}
	}
	for want, args := range map[int][]string{
		2: {a, "1", filepath.Join(dir, "missing"), "2", b, "3"},
		1: {"/dev/full", "x", b, "3"},
	} {
		err := exec.Command(program, args...).Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != want {
			t.Errorf("%v: %v, want exit code %d", args, err, want)
		}
	}
	if err := exec.Command(program).Run(); err != nil {
		t.Errorf("without arguments: %v", err)
	}
}

// readTree reads an image by the rules of the format, not by the writer's code.
func readTree(t *testing.T, image []byte) map[string]string {
	t.Helper()
	le := binary.LittleEndian
	if le.Uint32(image[1024:]) != superMagic {
		t.Fatal("no magic number")
	}
	out := map[string]string{}
	var walk func(nid uint64, path string)
	content := func(nid uint64) []byte {
		at := nid * 32
		size := uint64(le.Uint32(image[at+8:]))
		switch le.Uint16(image[at:]) >> 1 & 7 {
		case 0:
			start := uint64(le.Uint32(image[at+16:])) * 4096
			return image[start : start+size]
		case 2:
			if at/4096 != (at+32+size-1)/4096 {
				t.Fatalf("inline data of %d crosses a block", nid)
			}
			return image[at+32 : at+32+size]
		}
		t.Fatalf("layout of %d", nid)
		return nil
	}
	walk = func(nid uint64, path string) {
		data := content(nid)
		if le.Uint16(image[nid*32+4:])&0o170000 != 0o040000 {
			out[path] = string(data)
			return
		}
		out[path+"/"] = ""
		n := int(le.Uint16(data[8:])) / 12
		previous := ""
		for i := range n {
			start, end := int(le.Uint16(data[12*i+8:])), len(data)
			if i+1 < n {
				end = int(le.Uint16(data[12*(i+1)+8:]))
			}
			name := string(data[start:end])
			if name <= previous {
				t.Fatalf("%q does not follow %q", name, previous)
			}
			previous = name
			if name != "." && name != ".." {
				walk(le.Uint64(data[12*i:]), path+"/"+name)
			}
		}
	}
	walk(uint64(le.Uint16(image[1024+14:])), "")
	return out
}

func TestImage(t *testing.T) {
	many := Dir{}
	want := map[string]string{"/": "", "/many/": "", "/empty/": "", "/run": strings.Repeat("x", 5000), "/nothing": ""}
	for i := range 60 {
		name, data := "f"+strings.Repeat("a", i), strings.Repeat("z", i*37)
		many[name] = File{Data: []byte(data)}
		want["/many/"+name] = data
	}
	image, err := Image(Dir{"many": many, "empty": Dir{}, "run": File{Data: []byte(want["/run"]), Executable: true}, "nothing": File{}})
	if err != nil {
		t.Fatal(err)
	}
	got := readTree(t, image)
	for path, data := range want {
		if g, ok := got[path]; !ok || g != data {
			t.Errorf("%s: %d bytes, %v; want %d", path, len(g), ok, len(data))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	if len(image)%blockSize != 0 || int(binary.LittleEndian.Uint32(image[1024+36:])) != len(image)/blockSize {
		t.Errorf("image of %d bytes names another number of blocks", len(image))
	}
	checkWithTool(t, image)
}

// checkWithTool asks the format's own checker, where it is installed.
func checkWithTool(t *testing.T, image []byte) {
	fsck, err := exec.LookPath("fsck.erofs")
	if err != nil {
		return
	}
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(fsck, path).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
}

func TestImageRefusesWhatDoesNotFit(t *testing.T) {
	if _, err := Image(Dir{"x": File{Data: make([]byte, 4096)}}); err == nil {
		t.Error("a file larger than a block was taken")
	}
	if _, err := Image(Dir{"x": 1}); err == nil {
		t.Error("an entry of another type was taken")
	}
}

// connect runs the program on Linux and returns its socket and first byte.
func connect(t *testing.T, port int) (net.Conn, byte) {
	_, conn, first := connectProcess(t, port)
	return conn, first
}

func connectProcess(t *testing.T, port int) (*os.Process, net.Conn, byte) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "connect")
	if err := os.WriteFile(program, Connect(uint16(port)), 0o755); err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	cmd := exec.Command(program)
	cmd.Stdin = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		_ = cmd.Wait() // it ends with its socket
	})
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		t.Fatal(err)
	}
	return cmd.Process, conn, first[0]
}

func TestConnect(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("no %s here: %v", address, err)
			continue
		}
		conn, result := connect(t, l.Addr().(*net.TCPAddr).Port)
		if result != 0 {
			t.Fatalf("%s: error %d", address, result)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		// All that comes first, then the answer, with each way ended by itself.
		sent := bytes.Repeat([]byte("0123456789"), 100000)
		go func() {
			conn.Write(sent)
			conn.(*net.UnixConn).CloseWrite()
		}()
		if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: the server got %d bytes, %v", address, len(got), err)
		}
		go func() { server.Write(sent); server.Close() }()
		if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: the client got %d bytes, %v", address, len(got), err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, result := connect(t, l.Addr().(*net.TCPAddr).Port); result != byte(unix.ECONNREFUSED) {
		t.Errorf("nobody listens: error %d, want %d", result, unix.ECONNREFUSED)
	}
}

// Linux doubles what is asked for as the Sentry does.
func TestConnectHasSmallBuffers(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("no %s here: %v", address, err)
			continue
		}
		defer l.Close()
		p, _, _ := connectProcess(t, l.Addr().(*net.TCPAddr).Port)
		fd := newestDescriptor(t, p)
		for option, want := range map[int]int{unix.SO_SNDBUF: 32 << 10, unix.SO_RCVBUF: 64<<10 - 2} {
			if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil || got != want {
				t.Errorf("%s: option %d is %d, %v, want %d", address, option, got, err, want)
			}
		}
	}
}

// newestDescriptor copies the last descriptor that a process opened.
func newestDescriptor(t *testing.T, p *os.Process) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.Pid), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	newest, _ := strconv.Atoi(entries[len(entries)-1].Name())
	fd, err := unix.PidfdGetfd(pidfd, newest, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// The program runs on Linux as in the Sentry, in namespaces of its own.
func TestSetHostname(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	program := filepath.Join(t.TempDir(), "set-hostname")
	if err := os.WriteFile(program, SetHostname(), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(flags uintptr, script string) (string, error) {
		cmd := exec.Command("/bin/sh", "-c", script, "sh", program)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	const name = "a-host.of.many-letters"
	if out, err := run(syscall.CLONE_NEWUTS, `"$1" `+name+` && uname -n`); err != nil || out != name {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run(syscall.CLONE_NEWUTS, `"$1" `+strings.Repeat("a", 65)+`; echo $?`); err != nil || out != "22" {
		t.Errorf("too long: %q, %v, want EINVAL", out, err)
	}
}
