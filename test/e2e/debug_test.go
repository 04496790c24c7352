package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// debug runs a sub-command of debug on this node.
func (k kit) debug(verb string, args ...string) (stdout, stderr string, code int) {
	k.Helper()
	return k.program(append([]string{"debug", verb, "--root", k.env.Root, "--state", k.env.State}, args...)...)
}

// TestDebugWithoutADaemon: what hangs may be the daemon.
func TestDebugWithoutADaemon(t *testing.T) {
	k := ownNode(t, nodeOptions)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("main", "exec sleep 4242"))
	// A program whose name clears the screen.
	k.start(id, pod, k.shell("side", `name="$(printf '/tmp/busybox\033[2J')"; cp /bin/sh "$name"; exec "$name" sleep 4242`))
	k.must(k.env.Kill())
	defer func() {
		_, err := k.env.Start(k.ctx)
		k.must(err)
	}()
	for _, name := range []string{id, id[:12], pod.Metadata.Name, "default/" + pod.Metadata.Name} {
		out, errs, code := k.debug("stacks", name)
		if code != 0 {
			t.Errorf("stacks %s: %s", name, errs)
		}
		k.wants(out, "goroutine ", "gvisor.dev/gvisor/")
	}
	out, errs, code := k.debug("ps", id)
	for deadline := time.Now().Add(limit); code == 0 && !strings.Contains(out, "busybox") && time.Now().Before(deadline); {
		out, errs, code = k.debug("ps", id) // it is still being copied
	}
	if code != 0 {
		t.Errorf("ps: %s", errs)
	}
	k.wants(out, "COMMAND", "main", "side", "sleep", `busybox\u001b[2J`)
	if strings.Contains(out, "\x1b") {
		t.Errorf("ps: a guest writes to the terminal: %q", out)
	}

	out, errs, code = k.debug("events", id)
	if code != 0 {
		t.Errorf("events: %s", errs)
	}
	ids := map[string]bool{}
	for line := range strings.Lines(out) {
		var event struct {
			ID   string `json:"id"`
			Data struct {
				Pids struct{ Current int } `json:"pids"`
			} `json:"data"`
		}
		k.must(json.Unmarshal([]byte(line), &event))
		ids[event.ID] = event.Data.Pids.Current == 1
	}
	if len(ids) != 2 || !ids[cid] {
		t.Errorf("events: %s", out)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"log-level", id, "debug"}, "booted without a log"},
		{[]string{"log-level", id, "loud"}, "none of warning"},
		{[]string{"heap", id, "-o", filepath.Join(t.TempDir(), "heap")}, "booted without profiling"},
		{[]string{"stacks", "no-such-pod"}, "not found"},
	} {
		_, errs, code := k.debug(c.args[0], c.args[1:]...)
		if code != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit code %d: %s, want %q", c.args, code, errs, c.want)
		}
	}
}

// TestDebugProfilesAndLogOfASandbox on a node that is configured for both.
func TestDebugProfilesAndLogOfASandbox(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, []byte("[debug]\nsandbox_log = true\nprofile = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := ownNode(t, testenv.Options{DaemonArgs: []string{"--config", config}})
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("busy", "while :; do :; done"))
	dir := t.TempDir()
	for verb, want := range map[string][]byte{
		"heap": {0x1f, 0x8b}, "cpu-profile": {0x1f, 0x8b}, "trace": []byte("go 1."), // gzip, gzip, a trace's header
	} {
		path := filepath.Join(dir, verb)
		args := []string{id, "-o", path}
		if verb != "heap" {
			args = append(args, "--duration", "300ms")
		}
		if _, errs, code := k.debug(verb, args...); code != 0 {
			t.Errorf("%s: %s", verb, errs)
			continue
		}
		got, err := os.ReadFile(path)
		k.must(err)
		if !bytes.HasPrefix(got, want) {
			t.Errorf("%s begins with %q", verb, got[:min(len(got), 8)])
		}
		if _, errs, code := k.debug(verb, id, "-o", path); code != 1 || !strings.Contains(errs, "exists") {
			t.Errorf("%s over a file: exit code %d: %s", verb, code, errs)
		}
	}
	out, errs, code := k.debug("log-level", id, "warning")
	if code != 0 {
		t.Fatalf("log-level: %s", errs)
	}
	log := strings.TrimSpace(out)
	// verbose counts the lines of level debug that an exec brings.
	verbose := func() int {
		before, err := os.ReadFile(log)
		k.must(err)
		k.exec(cid, "true")
		after, err := os.ReadFile(log)
		k.must(err)
		return bytes.Count(after[len(before):], []byte("\nD"))
	}
	if n := verbose(); n > 0 {
		t.Errorf("%d lines at level warning", n)
	}
	if _, errs, code := k.debug("log-level", id, "debug"); code != 0 {
		t.Fatalf("log-level: %s", errs)
	}
	if verbose() == 0 {
		t.Error("no line at level debug")
	}
}
