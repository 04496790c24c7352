package hostplace

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWithin(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for _, d := range []string{"vol/sub dir/in", "volume", "elsewhere", "link"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := unix.Mount(filepath.Join(dir, "vol/sub dir"), elsewhere, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(elsewhere, unix.MNT_DETACH) })
	var table Table
	place := func(name string) Place {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p, err := table.Of(f)
		if err != nil || p.Path == "" {
			t.Fatalf("%s: %+v, %v", name, p, err)
		}
		return p
	}
	for _, c := range []struct {
		a, b, below string
		ok          bool
	}{
		{"vol", "vol", "", true}, {"elsewhere", "vol", "sub dir", true}, {"elsewhere/in", "vol", "sub dir/in", true},
		{"elsewhere", "vol/sub dir", "", true}, {"vol/sub dir/in", "elsewhere", "in", true},
		{"vol", "elsewhere", "", false}, {"volume", "vol", "", false}, {"link", "vol", "", false},
	} {
		if below, ok := place(c.a).Within(place(c.b)); below != c.below || ok != c.ok {
			t.Errorf("%s in %s: %q, %v", c.a, c.b, below, ok)
		}
	}
}
