package gvisor

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// askOpener plays a gofer that lives in this process's mount namespace.
func askOpener(t *testing.T, mounts []specs.Mount) (*opener, func(method string, m *specs.Mount) (reply, *os.File)) {
	t.Helper()
	d := newDonation(nil)
	var p preparedSpec
	for _, m := range mounts {
		p.serve(m, mountConf{Lower: lowerLisafs}, "")
	}
	o, err := newOpener(d, p.served)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(d.files[3])
	if err != nil {
		t.Fatal(err)
	}
	d.close()
	served := make(chan struct{})
	self := thisProcess(t)
	go func() { defer close(served); o.serve(self) }()
	t.Cleanup(func() { conn.Close(); <-served })
	return o, func(method string, m *specs.Mount) (reply, *os.File) {
		t.Helper()
		body, err := json.Marshal(request{Method: method, Arg: openMountArgs{Mount: m}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(body); err != nil {
			t.Fatal(err)
		}
		buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		var r reply
		if err := json.Unmarshal(buf[:n], &r); err != nil {
			t.Fatal(err)
		}
		if oobn == 0 {
			return r, nil
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fds[0]), "opened")
		t.Cleanup(func() { f.Close() })
		return r, f
	}
}

func TestOpenerOpensWhatTheSpecNames(t *testing.T) {
	needSandboxes(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ids := []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}
	all := idmap.Identity()
	plain := specs.Mount{Destination: "/plain", Source: dir, Options: []string{"rbind", "rw"}}
	mapped := specs.Mount{Destination: "/mapped", Source: dir, Options: []string{"rbind", "rw"}, UIDMappings: ids, GIDMappings: ids}
	readonly := specs.Mount{Destination: "/ro", Source: dir, Options: []string{"rbind", "ro"}, UIDMappings: all.UIDs, GIDMappings: all.GIDs}
	o, ask := askOpener(t, []specs.Mount{plain, mapped, readonly})
	for _, n := range []int{0, 1, 1, 2} {
		m := o.served[n].mount
		r, f := ask(methodOpenMount, &m)
		if !r.Success || f == nil {
			t.Fatalf("%s: %+v", m.Destination, r)
		}
		var st unix.Stat_t
		if err := unix.Fstatat(int(f.Fd()), "file", &st, 0); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]uint32{true: 70000, false: 0}[n == 1]; st.Uid != want {
			t.Errorf("%s: the file belongs to %d, want %d", m.Destination, st.Uid, want)
		}
		var fs unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || (fs.Flags&unix.ST_RDONLY != 0) != (n == 2) {
			t.Errorf("%s: mount flags %#x, %v", m.Destination, fs.Flags, err)
		}
	}
	if err := o.refusal(); err != nil {
		t.Errorf("refused: %v", err)
	}
}

// A gofer gets nothing but what its container was given, whatever it asks for.
func TestOpenerRefuses(t *testing.T) {
	needSandboxes(t)
	given := specs.Mount{Destination: "/vol", Source: t.TempDir(), Options: []string{"rbind", "ro"}}
	gone := specs.Mount{Destination: "/gone", Source: "/no/such/source"}
	o, ask := askOpener(t, []specs.Mount{given, gone})
	other := given
	other.Source = "/etc"
	for _, tc := range []struct {
		method string
		mount  *specs.Mount
		words  string
	}{
		{methodOpenMount, &other, "does not have"}, {methodOpenMount, &given, "does not have"}, // by its path on the host
		{methodOpenMount, nil, "asks for"}, {"goferToHostRPC.Other", &given, "asks for"},
		{methodOpenMount, &o.served[1].mount, "no such file"},
	} {
		if r, f := ask(tc.method, tc.mount); r.Success || f != nil || !strings.Contains(r.Err, tc.words) {
			t.Errorf("%s %+v: %+v", tc.method, tc.mount, r)
		}
	}
	if err := o.refusal(); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "/etc") {
		t.Errorf("the first refusal is %v", err)
	}
}

// A sandbox on the host's network is in the host's user namespace.
func TestBootRefusesIDsOnTheHostsNetwork(t *testing.T) {
	e := newTestEngine(t)
	cfg := podConfig(t, nil)
	cfg.IDs = idmap.Mapping{UIDs: []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}, GIDs: []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}}
	if _, err := e.Boot(testContext(t), cfg); !errdefs.IsInvalidArgument(err) {
		t.Errorf("boot: %v, want InvalidArgument", err)
	}
}

// talkToOpener gives a test the gofer's end itself.
func talkToOpener(t *testing.T, mounts int) (conn *net.UnixConn, over chan struct{}) {
	t.Helper()
	d := newDonation(nil)
	o, err := newOpener(d, make([]served, mounts))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := net.FileConn(d.files[3])
	if err != nil {
		t.Fatal(err)
	}
	d.close()
	over = make(chan struct{})
	self := thisProcess(t)
	go func() { defer close(over); o.serve(self) }()
	t.Cleanup(func() { theirs.Close(); <-over })
	return theirs.(*net.UnixConn), over
}

// A gofer that asks without end, in one question or in many, is hung up on.
func TestOpenerHasEnough(t *testing.T) {
	for name, ask := range map[string]string{
		"one question": `{"method":"` + strings.Repeat("x", 1<<16),
		"many":         `{"method":"x"}` + "\n",
		"nested":       strings.Repeat("[", 1<<16),
	} {
		t.Run(name, func(t *testing.T) {
			conn, served := talkToOpener(t, 1)
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			sent := 0
			for sent < 64<<20 {
				n, err := conn.Write([]byte(ask))
				if sent += n; err != nil {
					break
				}
				if name == "one question" {
					ask = strings.Repeat("x", 1<<16)
				}
			}
			<-served
			if sent > 4*maxQuestion {
				t.Errorf("%d bytes were taken", sent)
			}
		})
	}
}

// What a gofer asked for is told in short.
func TestOpenerQuotesInShort(t *testing.T) {
	o, ask := askOpener(t, nil)
	long := strings.Repeat("\x1b[31m", 1000)
	if r, _ := ask(methodOpenMount, &specs.Mount{Source: long, Destination: long}); r.Success || len(r.Err) > 3*maxQuote {
		t.Errorf("%d bytes: %+v", len(r.Err), r.Success)
	}
	if text := o.refusal().Error(); len(text) > 3*maxQuote || strings.Contains(text, "\x1b") {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}

// A connection that outlives its gofer opens nothing, also when another has its pid.
func TestOpenerOfADeadGofer(t *testing.T) {
	needSandboxes(t)
	conn, theirs := talkPair(t)
	o := &opener{conn: conn}
	gone, _ := reusedPID(t)
	body, err := json.Marshal(request{Method: methodOpenMount, Arg: openMountArgs{Mount: &specs.Mount{Source: t.TempDir()}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Write(body); err != nil {
		t.Fatal(err)
	}
	o.serve(gone)
	if err := o.refusal(); !errdefs.IsUnavailable(err) {
		t.Errorf("%v; want Unavailable", err)
	}
	if answer, err := io.ReadAll(theirs); err != nil && !errors.Is(err, unix.ECONNRESET) || len(answer) > 0 {
		t.Errorf("it was answered %q, %v", answer, err)
	}
}

// talkPair is a connection, both of whose ends are the test's.
func talkPair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	a, b, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	var ends [2]*net.UnixConn
	for i, f := range []*os.File{a, b} {
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}
