package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

const (
	localUID = 12345
	localGID = 23456 // a member of this group may use the socket
)

// localUserEnv makes this program be that user: see beLocalUser.
const localUserEnv = "CRI_SANDBOX_TEST_LOCAL_USER"

// beLocalUser reads paths and tells of each what the user can do with it.
func beLocalUser(in io.Reader, out io.Writer) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		path := lines.Text()
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrPermission) {
			continue
		} else if err != nil {
			fmt.Fprintf(out, "miss %s\n", path) // whether it is there can be told
			continue
		}
		fmt.Fprintf(out, "see %s\n", path)
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			syscall.Close(fd)
			fmt.Fprintf(out, "open %s\n", path)
		}
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			fmt.Fprintf(out, "connect %s\n", path)
		}
	}
}

// asLocalUser tells what that user can do with these paths, as "see PATH" and so on.
func asLocalUser(k kit, gid uint32, paths []string) map[string]bool {
	k.Helper()
	self, err := os.Executable()
	k.must(err)
	// Its own directory is root's alone.
	program := filepath.Join(k.env.Dir, "local-user")
	k.must(exec.Command("cp", self, program).Run())
	k.must(os.Chmod(program, 0o755))
	cmd := exec.Command(program)
	cmd.Env, cmd.Dir = []string{localUserEnv + "=1"}, "/"
	cmd.Stdin = strings.NewReader(strings.Join(paths, "\n") + "\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: localUID, Gid: gid}}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		k.Fatalf("be the local user: %v, %s", err, &errs)
	}
	can := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		can[strings.TrimSpace(line)] = true
	}
	return can
}

// TestLocalUserReachesNothing goes to every directory, file and socket of a node with
// pods, by its path, as another user of the node would, who knows all of them.
func TestLocalUserReachesNothing(t *testing.T) {
	k := ownNode(t, testenv.Options{Config: "listen_group = \"" + strconv.Itoa(localGID) + "\"\n"})
	k.must(os.Chmod(k.env.Dir, 0o755))
	for _, change := range []func(*runtimeapi.PodSandboxConfig){func(*runtimeapi.PodSandboxConfig) {}, ownUsers} {
		id, pod := k.pod(change)
		k.start(id, pod, k.shell("a", "cp /bin/sh /suid && chmod 4755 /suid; exec sleep 600", func(c *runtimeapi.ContainerConfig) { c.Stdin = true }))
		k.start(id, pod, k.shell("image", "exec sleep 600", withMounts(
			&runtimeapi.Mount{ContainerPath: "/image", Image: &runtimeapi.ImageSpec{Image: k.env.Images["busybox"]}, Readonly: true})))
	}

	paths := []string{k.env.Dir}
	sockets, sawProgram := 0, false
	for _, top := range []string{k.env.Root, k.env.State} {
		k.must(filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			k.must(err)
			paths = append(paths, path)
			if d.Type()&fs.ModeSocket != 0 {
				sockets++
			}
			sawProgram = sawProgram || strings.HasSuffix(path, "/rootfs/bin/busybox")
			return nil
		}))
	}
	if len(paths) < 200 || sockets < 3 || !sawProgram {
		t.Fatalf("the node has %d files and %d sockets, a program in a root file system %t", len(paths), sockets, sawProgram)
	}

	stranger := asLocalUser(k, localUID, paths)
	for what := range stranger {
		switch what {
		case "see " + k.env.Dir, "open " + k.env.Dir: // not ours; that something is seen
		case "see " + k.env.Root, "see " + k.env.State: // from the directory above
		default:
			t.Errorf("a user of the node can %s", what)
		}
	}
	if !stranger["open "+k.env.Dir] || !stranger["see "+k.env.Root] {
		t.Errorf("the user sees nothing at all: %v", stranger)
	}
	member := asLocalUser(k, localGID, paths)
	for what := range member {
		if !stranger[what] && what != "see "+k.env.Socket && what != "connect "+k.env.Socket && !strings.HasPrefix(what, "see "+k.env.State+"/") {
			t.Errorf("a member of the socket's group can %s", what)
		}
	}
	if !member["connect "+k.env.Socket] {
		t.Errorf("a member of the socket's group cannot connect to it: %v", member)
	}
	k.noSetUIDMounts()
}

// noSetUIDMounts complains about a mount of ours on which a set-uid program or a
// device of an image would have its effect on the node.
func (k kit) noSetUIDMounts() {
	k.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	k.must(err)
	ours := 0
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if !strings.HasPrefix(fields[4], k.env.Dir+"/") || strings.Contains(line, " - nsfs ") {
			continue
		}
		ours++
		options := "," + fields[5] + ","
		if !strings.Contains(options, ",nosuid,") || !strings.Contains(options, ",nodev,") {
			k.Errorf("mount %s has the options %s", fields[4], fields[5])
		}
	}
	if ours < 4 {
		k.Errorf("%d mounts looked at", ours)
	}
}
