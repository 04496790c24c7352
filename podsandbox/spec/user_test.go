package spec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\n" +
		"alice:x:1000:1001:A:/home/alice:/bin/sh\n" +
		"42:x:7:8::/seven:/bin/sh\n" +
		"mallory:x:zero:0::/root:/bin/sh\n" +
		"high:x:4294967295:0::/:/bin/sh\n" +
		"relative:x:9:9::home:/bin/sh\n" +
		"\n#comment:x:5:5\nshort:x\n"
	testGroup = "root:x:0:\nalice:x:1001:\nwheel:x:10:alice,root\nvideo:x:44:alice\nbroken:x:many:alice\nhigh:x:4294967295:\n"
)

func testRoot(t *testing.T) string {
	root := t.TempDir()
	writeFile(t, filepath.Join(root, "etc/passwd"), testPasswd)
	writeFile(t, filepath.Join(root, "etc/group"), testGroup)
	return root
}

func id(v int64) *runtimeapi.Int64Value { return &runtimeapi.Int64Value{Value: v} }

func TestResolveUser(t *testing.T) {
	type sc = runtimeapi.LinuxContainerSecurityContext
	strict := runtimeapi.SupplementalGroupsPolicy_Strict
	root := testRoot(t)
	for name, tc := range map[string]struct {
		image string
		sc    *sc
		want  ResolvedUser
	}{
		"nothing":              {"", nil, ResolvedUser{Groups: []uint32{0, 10}, Home: "/root"}},
		"image name":           {"alice", nil, ResolvedUser{1000, 1001, []uint32{10, 44, 1001}, "/home/alice"}},
		"image uid":            {"1000", nil, ResolvedUser{1000, 1001, []uint32{10, 44, 1001}, "/home/alice"}},
		"image uid unknown":    {"555", nil, ResolvedUser{555, 0, []uint32{0}, ""}},
		"image uid:gid":        {"555:666", nil, ResolvedUser{555, 666, []uint32{666}, ""}},
		"image name:group":     {"alice:video", nil, ResolvedUser{1000, 44, []uint32{10, 44}, "/home/alice"}},
		"image :group":         {":video", nil, ResolvedUser{0, 44, []uint32{10, 44}, "/root"}},
		"digits are an id":     {"42", nil, ResolvedUser{42, 0, []uint32{0}, ""}},
		"user over image":      {"alice:video", &sc{RunAsUser: id(0)}, ResolvedUser{0, 0, []uint32{0, 10}, "/root"}},
		"name over image":      {"1", &sc{RunAsUsername: "alice"}, ResolvedUser{1000, 1001, []uint32{10, 44, 1001}, "/home/alice"}},
		"group":                {"", &sc{RunAsUser: id(1000), RunAsGroup: id(3)}, ResolvedUser{1000, 3, []uint32{3, 10, 44}, "/home/alice"}},
		"groups merged":        {"", &sc{RunAsUser: id(1000), SupplementalGroups: []int64{44, 9}}, ResolvedUser{1000, 1001, []uint32{9, 10, 44, 1001}, "/home/alice"}},
		"groups strict":        {"", &sc{RunAsUser: id(1000), SupplementalGroups: []int64{9}, SupplementalGroupsPolicy: strict}, ResolvedUser{1000, 1001, []uint32{9, 1001}, "/home/alice"}},
		"home is no path":      {"relative", nil, ResolvedUser{9, 9, []uint32{9}, ""}},
		"existing number name": {"", &sc{RunAsUsername: "1000"}, ResolvedUser{1000, 1001, []uint32{10, 44, 1001}, "/home/alice"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ResolveUser(root, tc.image, tc.sc)
			if err != nil {
				t.Fatal(err)
			}
			if got.UID != tc.want.UID || got.GID != tc.want.GID || got.Home != tc.want.Home || !slices.Equal(got.Groups, tc.want.Groups) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
	for name, tc := range map[string]struct {
		image string
		sc    *sc
		text  string
	}{
		"unknown name":         {"bob", nil, `"bob"`},
		"unknown group":        {"alice:bobs", nil, `"bobs"`},
		"damaged entry":        {"mallory", nil, `"mallory"`},
		"damaged group":        {"alice:broken", nil, `"broken"`},
		"comment":              {"#comment", nil, "#comment"},
		"uid in passwd":        {"high", nil, "outside"},
		"gid in group":         {"alice:high", nil, "of user alice"},
		"uid too high":         {"2147483648", nil, "outside"},
		"uid very high":        {"99999999999999999999", nil, "outside"},
		"gid too high":         {"0:2147483648", nil, "outside"},
		"negative":             {"-1", nil, `"-1"`},
		"request, unknown":     {"", &sc{RunAsUsername: "bob"}, `"bob"`},
		"request, no such uid": {"", &sc{RunAsUsername: "555"}, `"555"`},
		"request, negative":    {"", &sc{RunAsUser: id(-1)}, `"-1"`},
		"request, group alone": {"", &sc{RunAsGroup: id(1)}, "without"},
		"request, bad group":   {"", &sc{RunAsUser: id(1), RunAsGroup: id(-1)}, "group -1 of user 1"},
		"request, bad groups":  {"", &sc{SupplementalGroups: []int64{-1}}, "outside"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ResolveUser(root, tc.image, tc.sc)
			bad(tc.text).check(t, err)
		})
	}
}

func TestLinuxContainerUser(t *testing.T) {
	u := LinuxContainerUser(ResolvedUser{UID: 1, GID: 2, Groups: []uint32{2, 3}}).GetLinux()
	if u.GetUid() != 1 || u.GetGid() != 2 || !slices.Equal(u.GetSupplementalGroups(), []int64{2, 3}) {
		t.Errorf("got %v", u)
	}
}

func TestResolveUserWithoutFiles(t *testing.T) {
	got, err := ResolveUser(t.TempDir(), "5", nil)
	if err != nil || got.UID != 5 || got.Home != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = ResolveUser(t.TempDir(), "alice", nil)
	bad("alice").check(t, err)
	if _, err = ResolveUser("/no/such/root", "", nil); err == nil {
		t.Error("an absent root file system is no error")
	}
}

// An image decides what lies at etc/passwd; it must not lead out of its root, hold
// the daemon up, or fill its memory.
func TestResolveUserHostileFiles(t *testing.T) {
	host := filepath.Join(t.TempDir(), "passwd")
	writeFile(t, host, "secret:x:31337:0::/:\n")
	fresh := func(t *testing.T) (root, passwd string) {
		root = testRoot(t)
		passwd = filepath.Join(root, "etc/passwd")
		if err := os.Remove(passwd); err != nil {
			t.Fatal(err)
		}
		return root, passwd
	}
	t.Run("absolute link", func(t *testing.T) {
		root, passwd := fresh(t)
		if err := os.Symlink(host, passwd); err != nil {
			t.Fatal(err)
		}
		_, err := ResolveUser(root, "secret", nil)
		bad("secret").check(t, err)
	})
	t.Run("climbing link", func(t *testing.T) {
		root, passwd := fresh(t)
		if err := os.Symlink(strings.Repeat("../", 20)+host, passwd); err != nil {
			t.Fatal(err)
		}
		_, err := ResolveUser(root, "secret", nil)
		bad("secret").check(t, err)
	})
	t.Run("link within the image", func(t *testing.T) {
		root, passwd := fresh(t)
		writeFile(t, filepath.Join(root, "usr/lib/passwd"), testPasswd)
		if err := os.Symlink("/usr/lib/passwd", passwd); err != nil {
			t.Fatal(err)
		}
		if u, err := ResolveUser(root, "alice", nil); err != nil || u.UID != 1000 {
			t.Errorf("got %+v, %v", u, err)
		}
	})
	t.Run("link in a circle", func(t *testing.T) {
		root, passwd := fresh(t)
		if err := os.Symlink("passwd", passwd); err != nil {
			t.Fatal(err)
		}
		_, err := ResolveUser(root, "alice", nil)
		bad("etc/passwd").check(t, err)
	})
	t.Run("FIFO", func(t *testing.T) {
		root, passwd := fresh(t)
		if err := unix.Mkfifo(passwd, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ResolveUser(root, "alice", nil)
		bad("not a regular file").check(t, err)
	})
	t.Run("directory", func(t *testing.T) {
		root, passwd := fresh(t)
		if err := os.Mkdir(passwd, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := ResolveUser(root, "alice", nil)
		bad("not a regular file").check(t, err)
	})
	t.Run("too large", func(t *testing.T) {
		root, passwd := fresh(t)
		writeFile(t, passwd, "")
		if err := os.Truncate(passwd, maxUserFile+1); err != nil {
			t.Fatal(err)
		}
		_, err := ResolveUser(root, "alice", nil)
		bad("larger").check(t, err)
	})
	t.Run("line too long", func(t *testing.T) {
		root, passwd := fresh(t)
		writeFile(t, passwd, "a:x:1:1:"+strings.Repeat("x", 100_000)+":/:/\n")
		_, err := ResolveUser(root, "alice", nil)
		bad("cannot be parsed").check(t, err)
	})
}
