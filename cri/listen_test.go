package cri

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListenSocketIsItsOwnersAlone, also under a umask that hides nothing.
func TestListenSocketIsItsOwnersAlone(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	for group, want := range map[string]struct {
		mode os.FileMode
		gid  uint32
	}{
		"":      {0o600, uint32(os.Getegid())},
		"54321": {0o660, 54321},
		"root":  {0o660, 0},
	} {
		t.Run("group "+group, func(t *testing.T) {
			if group != "" && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			path := filepath.Join(t.TempDir(), "s.sock")
			l, err := Listen("unix://"+path, group)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			fi, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if st := fi.Sys().(*syscall.Stat_t); fi.Mode().Perm() != want.mode || st.Gid != want.gid || st.Uid != uint32(os.Geteuid()) {
				t.Errorf("mode %o, owner %d:%d; want %o, group %d", fi.Mode().Perm(), st.Uid, st.Gid, want.mode, want.gid)
			}
		})
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken.sock")
	l, err := net.Listen("unix", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ url, group string }{
		"a socket in use": {"unix://" + taken, ""},
		"a file":          {"unix://" + file, ""},
		"tcp":             {"tcp://127.0.0.1:0", ""},
		"a relative path": {"unix://x.sock", ""},
		"no such group":   {"unix://" + filepath.Join(dir, "s.sock"), "no such group"},
	} {
		if l, err := Listen(c.url, c.group); err == nil {
			l.Close()
			t.Errorf("%s was taken", name)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "kept" {
		t.Errorf("the file is %q, %v", b, err)
	}
}
