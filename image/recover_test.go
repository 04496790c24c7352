package image

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

func TestOpenRefusesASecondProcess(t *testing.T) {
	s := newStore(t, Options{})
	if _, err := Open(t.Context(), s.opts); !errdefs.IsUnavailable(err) {
		t.Errorf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	newStore(t, s.opts)
}

func TestOpenRefusesBadRoots(t *testing.T) {
	needRoot(t)
	for _, root := range []string{"", "relative", "/tmp/a:b"} {
		if _, err := Open(t.Context(), Options{Root: root}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("root %q: %v", root, err)
		}
	}
	if _, err := Open(t.Context(), Options{Root: "/proc/self/images"}); err == nil {
		t.Error("opened a root in /proc")
	}
}

func TestOpenFindsEverythingAgain(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	push(t, host+"/app:v1", buildImage(t, v1.Config{User: "app"}, gzipLayer(file("a", "1")), gzipLayer(file("b", "2"))))
	before := mustPull(t, s, host+"/app:v1")
	root := mounted(t, s, "c", before)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, s.opts)
	after, err := s.Get(t.Context(), host+"/app:v1")
	if err != nil || after.ID != before.ID || after.Size != before.Size || after.Config.User != "app" ||
		!slices.Equal(after.RepoDigests, before.RepoDigests) {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
	if keys, _ := s.RootfsKeys(); !slices.Equal(keys, []string{"c"}) {
		t.Errorf("keys %v", keys)
	}
	if err := s.MountRootfs("c", after, filepath.Join(t.TempDir(), "x"), idmap.Mapping{}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("key in use: %v", err)
	}
	if err := s.UnmountRootfs(t.Context(), "c", root); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), after.ID); err != nil {
		t.Fatal(err)
	}
	wantNothingLeft(t, s)
}

// Everything that a killed process can leave is put right by the next one.
func TestOpenCleansUp(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/app:v1", "x")
	mustPull(t, s, host+"/app:v1")
	ctx := scoped(t.Context())

	// A layer half unpacked, under a lease.
	leased, err := s.pulls.leases.open(ctx, "some/name")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.backend.snapshots.Prepare(leased, "extract-1 sha256:x", ""); err != nil {
		t.Fatal(err)
	}
	// A view without an image or a container.
	img, _ := s.Get(ctx, host+"/app:v1")
	if err := s.backend.names.Delete(ctx, img.RepoTags[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.backend.names.Delete(ctx, img.RepoDigests[0]); err != nil {
		t.Fatal(err)
	}
	// A writable layer without its record, one half removed, a stray file.
	for _, dir := range []string{s.dirs.rootfs("half"), filepath.Join(s.opts.Root, "trash", "old", "fs"), filepath.Join(s.dirs.snapshots(), "new-123", "fs")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Downloads that have not got their name yet, or half of it.
	for name, ref := range map[string]string{"nameless": "", "half-named": "cri-sandbox/7/lay"} {
		dir := filepath.Join(s.opts.Root, "content", "ingest", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if ref == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "ref"), []byte(ref), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, s.opts)
	if keys, _ := s.RootfsKeys(); !slices.Equal(keys, []string{"half"}) {
		t.Errorf("keys %v", keys)
	}
	if err := s.UnmountRootfs(ctx, "half", filepath.Join(t.TempDir(), "none")); err != nil {
		t.Error(err)
	}
	if err := s.pulls.leases.delete(ctx, s.pulls.leases.of("some/name")); err != nil {
		t.Error(err)
	}
	wantNothingLeft(t, s)
}

// After a reboot, unpacked layers that belong to no image may be damaged.
func TestOpenAfterARebootDropsUnfinishedPulls(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	push(t, host+"/app:v1", buildImage(t, v1.Config{}, gzipLayer(file("a", "1"))))
	kept := mustPull(t, s, host+"/app:v1")
	if err := s.collector.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	leased, err := s.pulls.leases.open(scoped(t.Context()), "other")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.backend.snapshots.Prepare(leased, "k", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.backend.snapshots.Commit(leased, "sha256:unfinished", "k"); err != nil {
		t.Fatal(err)
	}
	has := func() bool {
		_, err := s.backend.snapshots.Stat(scoped(t.Context()), "sha256:unfinished")
		return err == nil
	}
	reopen := func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = newStore(t, s.opts)
	}
	reopen()
	if err := s.collector.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !has() {
		t.Error("a restart dropped the layer, too")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.dirs.boot(), []byte("an earlier boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, s.opts)
	if has() {
		t.Error("the layer of an unfinished pull outlived a reboot")
	}
	if got := readFile(t, mounted(t, s, "c", kept)+"/a"); got != "1" {
		t.Errorf("the finished image reads %q", got)
	}
	if list, _ := s.backend.leases.List(scoped(t.Context())); len(list) != 0 {
		t.Errorf("leases %v", list)
	}
}

// One image that cannot be read costs its own names only.
func TestOpenDropsABrokenImage(t *testing.T) {
	host := newRegistry(t, nil)
	s := newStore(t, Options{})
	pushSmall(t, host+"/good", "good")
	pushSmall(t, host+"/bad", "bad")
	mustPull(t, s, host+"/good")
	bad := mustPull(t, s, host+"/bad")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.opts.Root, "content/blobs/sha256", bad.ID[len("sha256:"):])
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	s = newStore(t, s.opts)
	if _, err := s.Get(t.Context(), host+"/good"); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), host+"/bad"); !errdefs.IsNotFound(err) {
		t.Errorf("broken image: %v", err)
	}
	mustPull(t, s, host+"/bad") // heals it
}
