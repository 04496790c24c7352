package e2e

import (
	"encoding/base32"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestDaemonUnderAnyUmask: one that was started with a umask that leaves nothing to
// others gives a pod's users the way to the pod's files all the same, and makes
// directories of the node for them.
func TestDaemonUnderAnyUmask(t *testing.T) {
	repo, err := testenv.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	wrapper := filepath.Join(dir, "cri-sandbox")
	script := "#!/bin/sh\numask 077\nexec " + repo + "/bin/cri-sandbox \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	k := ownNode(t, testenv.Options{Binary: wrapper})
	made := filepath.Join(dir, "made")
	id, pod := k.pod(ownUsers)
	k.wants(k.run(id, pod, k.shell("a", "cat /etc/hostname; ls -d /made", asApp, withMounts(
		&runtimeapi.Mount{ContainerPath: "/made", HostPath: made},
	))), pod.Hostname, "/made")
	fi, err := os.Stat(made)
	k.must(err)
	if fi.Mode().Perm() != 0o755 {
		t.Errorf("the directory that it made is %v", fi.Mode())
	}
}

// TestSecretsReachNoLog, at the highest verbosity and with a sandbox's own log
// off: neither of what pods are given, nor of what they are asked to run.
func TestSecretsReachNoLog(t *testing.T) {
	k := streamKit{ownNode(t, testenv.Options{DaemonArgs: []string{"--log-level", "10"}})}
	const secret = "hunter2-4d5e6f"
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Annotations = map[string]string{"token": secret + "-annotation"}
	})
	env := func(c *runtimeapi.ContainerConfig) {
		c.Envs = []*runtimeapi.KeyValue{{Key: "PASSWORD", Value: []byte(secret + "-env")}}
	}
	cid := k.start(id, pod, k.shell("a", "exec sleep 600", env))
	k.exec(cid, "echo "+secret+"-argument")
	k.wait(k.start(id, pod, k.shell("fails", "exit 3", env)))
	broken := testenv.ContainerConfig("broken", k.env.Images["busybox"], "/no/such/program", secret+"-argument")
	env(broken)
	if _, err := k.env.Client.RunContainer(k.ctx, id, pod, broken); err == nil {
		t.Error("a program that does not exist ran")
	}
	// A pull with credentials, of an image that is there, and of one that is not.
	for _, image := range []string{k.env.Images["busybox"], k.env.Registry + "/none/such:1"} {
		_, _ = k.env.Client.Image.PullImage(k.ctx, &runtimeapi.PullImageRequest{
			Image: &runtimeapi.ImageSpec{Image: image},
			Auth:  &runtimeapi.AuthConfig{Username: "me", Password: secret + "-registry", ServerAddress: k.env.Registry},
		})
	}
	url := k.execURL(cid, false, "echo", secret+"-streamed")
	k.connect(url, "stdin", "stdout", "stderr").exits(0)
	token := url[strings.LastIndex(url, "/")+1:]
	_, err := k.env.Restart(k.ctx)
	k.must(err)
	k.must(k.env.Client.RemovePod(k.ctx, id))

	encoded := base64.StdEncoding.EncodeToString([]byte("me:" + secret + "-registry"))
	logged := readFile(k.kit, k.env.LogFile())
	k.wants(logged, "RunPodSandbox", "PullImage", "ExecSync")
	for _, word := range []string{secret, encoded, token} {
		for line := range strings.Lines(logged) {
			if strings.Contains(line, word) {
				t.Errorf("the daemon's log has %q: %s", word, line)
			}
		}
	}
}

// TestNamesAreNoPaths: whatever a client calls things, files are named by the ids
// that the daemon chose.
func TestNamesAreNoPaths(t *testing.T) {
	k := newKit(t)
	const up = "../../../../../../../../escaped"
	for name, change := range map[string]func(*runtimeapi.PodSandboxMetadata){
		"name":      func(m *runtimeapi.PodSandboxMetadata) { m.Name = up },
		"namespace": func(m *runtimeapi.PodSandboxMetadata) { m.Namespace = up },
		"uid":       func(m *runtimeapi.PodSandboxMetadata) { m.Uid = up },
	} {
		bad := k.env.PodConfig("bad")
		change(bad.Metadata)
		_, err := k.env.Client.RunPod(k.ctx, bad)
		k.refused(err, codes.InvalidArgument, name, "must not be a path")
	}
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Labels[up], p.Annotations = up, map[string]string{up: up}
	})
	bad := k.shell("bad", "true")
	bad.Metadata.Name = up
	_, err := k.create(id, pod, bad)
	k.refused(err, codes.InvalidArgument, "must not be a path")
	c := k.shell("x", "echo ran", func(c *runtimeapi.ContainerConfig) {
		c.Labels[up], c.Labels["io.kubernetes.container.name"] = up, up
		c.Annotations = map[string]string{up: up}
	})
	k.wants(k.run(id, pod, c), "ran")
	for _, dir := range []string{"/", filepath.Dir(k.env.Dir), "/run", "/var/lib", "/var/lib/cni"} {
		if _, err := os.Lstat(filepath.Join(dir, "escaped")); err == nil {
			t.Errorf("there is an %s/escaped", dir)
		}
	}
	k.must(filepath.WalkDir(k.env.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), "escaped") {
			t.Errorf("the name is in the path %s", path)
		}
		if d != nil && d.IsDir() && d.Name() == "images" {
			return filepath.SkipDir
		}
		return nil
	}))
	// Paths are the one thing that a client chooses; they must not lead out.
	for _, logPath := range []string{"../x.log", "a/../../x.log", "/etc/x.log", ".", "..", "a/.."} {
		bad := k.shell("bad", "true")
		bad.LogPath = logPath
		_, err := k.create(id, pod, bad)
		k.refused(err, codes.InvalidArgument, "log path")
	}
	for _, dir := range []string{"logs", k.env.LogDir + "/../../etc", "../logs"} {
		bad := k.env.PodConfig("bad")
		bad.LogDirectory = dir
		_, err := k.env.Client.RunPod(k.ctx, bad)
		k.refused(err, codes.InvalidArgument, "log directory")
	}
	// Nor may a link at its place.
	victim := filepath.Join(t.TempDir(), "victim")
	k.must(os.WriteFile(victim, []byte("kept"), 0o600))
	linked := k.shell("linked", "echo overwritten")
	k.must(os.MkdirAll(pod.LogDirectory, 0o755))
	k.must(os.Symlink(victim, filepath.Join(pod.LogDirectory, linked.LogPath)))
	if cid, err := k.create(id, pod, linked); err == nil {
		_, _ = k.runtime().StartContainer(k.ctx, &runtimeapi.StartContainerRequest{ContainerId: cid})
		k.wait(cid)
	}
	if got := readFile(k, victim); got != "kept" {
		t.Errorf("through a link at the log's path: %q", got)
	}
}

// TestTokensCannotBeGuessed: they are of the random generator's making, of at least
// 128 bits, and no two are alike.
func TestTokensCannotBeGuessed(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	seen := map[string]bool{}
	used := map[rune]bool{}
	for range 200 {
		url := streamKit{k}.execURL(cid, false, "true")
		token := url[strings.LastIndex(url, "/")+1:]
		raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(token)
		if err != nil || len(raw) < 16 || seen[token] {
			t.Fatalf("token %q: %d bytes, %v, seen before: %v", token, len(raw), err, seen[token])
		}
		seen[token] = true
		for _, r := range token {
			used[r] = true
		}
	}
	// 5200 characters of 32: that one of them is missing happens once in 10^70.
	if len(used) < 32 {
		t.Errorf("200 tokens have only %d of 32 characters", len(used))
	}
}

// TestTokensExpire takes more than a minute and runs with the long tests.
func TestTokensExpire(t *testing.T) {
	if long, _ := testenv.Soak(0); !long {
		t.Skip("takes a minute; make soak runs it")
	}
	k := newKit(t)
	id, pod := k.pod()
	url := streamKit{k}.execURL(k.start(id, pod, k.shell("a", "exec sleep 600")), false, "true")
	time.Sleep(61 * time.Second)
	if conn, err := testenv.DialSPDY(url, "v4.channel.k8s.io", nil); err == nil {
		conn.Close()
		t.Error("a token is good after a minute")
	}
}
