package gvisor

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/idmap"
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
	go func() { defer close(served); o.serve(os.Getpid()) }()
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
		buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
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
func TestMappedSandboxOnHostNetworkIsRefused(t *testing.T) {
	e := newTestEngine(t)
	cfg := podConfig(t, nil)
	cfg.IDs = idmap.Mapping{UIDs: []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}, GIDs: []specs.LinuxIDMapping{{HostID: 70000, Size: 10}}}
	if _, err := e.Boot(testContext(t), cfg); !errdefs.IsInvalidArgument(err) {
		t.Errorf("boot: %v, want InvalidArgument", err)
	}
}
