package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

func TestExecStreams(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))

	r := k.execute(cid, "/bin/sh", "-c", "echo out; echo err >&2; exit 7")
	r.exits(7)
	if r.stdout.String() != "out\n" || r.stderr.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", &r.stdout, &r.stderr)
	}

	// Half-close: the command sees the end of its stdin and answers then.
	r = k.execute(cid, "/bin/sh", "-c", "sha256sum; kill -9 $$")
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	r.send(string(sent))
	r.endStdin()
	r.exits(137)
	if want := fmt.Sprintf("%x  -\n", sha256.Sum256(sent)); r.stdout.String() != want {
		t.Errorf("sum %q, want %q", &r.stdout, want)
	}

	// All of a large output, though the client reads after the command has ended.
	r = k.connect(k.execURL(cid, false, "/bin/sh", "-c", "head -c 5000000 /dev/zero; exit 3"), "stdin", "stdout", "stderr")
	r.exits(3)
	if n := len(r.stdout.String()); n != 5000000 {
		t.Errorf("%d bytes came, want 5000000", n)
	}

	if out := k.execute(cid, "/none"); true {
		if code, msg := out.end(); code != -1 || !strings.Contains(msg, "/none") {
			t.Errorf("a program that does not exist: %d, %q", code, msg)
		}
	}
}

func TestExecOnATerminal(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	r := streamKit{k}.executeTTY(cid, "/bin/sh")
	r.size(40, 132)
	r.send("echo ready\n")
	r.stdout.wait(k, "ready\r\n")
	r.send("stty size; echo sized\n")
	r.stdout.wait(k, "40 132\r\nsized")

	// Ctrl-C ends what runs in the foreground, not the shell.
	r.send("sh -c 'trap \"echo window \\$(stty size)\" WINCH; echo armed; while :; do sleep 0.05; done'\n")
	r.stdout.wait(k, "armed\r\n")
	r.size(50, 100)
	r.stdout.wait(k, "window 50 100")
	r.send("\x03")
	r.stdout.wait(k, "^C")
	r.send("echo code $?\n")
	r.stdout.wait(k, "code 130\r\n")
	r.send("echo next\n")
	r.stdout.wait(k, "next\r\n")
	// On a raw terminal it is a character like any other.
	r.send("(trap '' INT QUIT TSTP; stty raw -echo; echo raw; head -c 3 | hexdump -C; stty sane)\n")
	r.stdout.wait(k, "raw\n")
	r.send("\x03\x1a\x1c")
	r.stdout.wait(k, "03 1a 1c")
	r.send("sh -c 'trap \"echo quit; exit 4\" QUIT; echo waits; while :; do sleep 0.05; done'\n")
	r.stdout.wait(k, "waits\r\n")
	r.send("\x1c")
	r.stdout.wait(k, "quit\r\n")

	// Ctrl-Z stops a job of a shell.
	r.send("sh -c 'echo works; while :; do sleep 0.05; done'\n")
	r.stdout.wait(k, "works\r\n")
	r.send("\x1a")
	r.stdout.wait(k, "Stopped")
	r.send("kill -9 %1; exec sh -c 'exit 9'\n")
	r.exits(9)
}

// A client that goes away hangs up.
func TestExecClientGoesAway(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	gone := func(what string) {
		k.Helper()
		for deadline := time.Now().Add(limit); strings.Contains(k.exec(cid, "ps"), what); {
			if time.Now().After(deadline) {
				t.Fatalf("%q still runs:\n%s", what, k.exec(cid, "ps"))
			}
		}
	}
	running := func(what string) {
		k.Helper()
		for deadline := time.Now().Add(limit); !strings.Contains(k.exec(cid, "ps"), " root     "+what); {
			if time.Now().After(deadline) {
				t.Fatalf("%q does not run:\n%s", what, k.exec(cid, "ps"))
			}
		}
	}
	r := k.executeTTY(cid, "/bin/sh", "-c", "(trap '' HUP; exec sleep 1001) & sleep 1002; echo never")
	running("sleep 1001")
	running("sleep 1002")
	r.conn.Close()
	gone("sleep 1002")
	k.wants(k.exec(cid, "ps"), "sleep 1001") // as nohup would

	r = k.execute(cid, "/bin/sh", "-c", "sleep 1003; echo never")
	running("sleep 1003")
	r.conn.Close()
	gone("sleep 1003")

	resp, err := k.runtime().Exec(k.ctx, &runtimeapi.ExecRequest{ContainerId: cid, Cmd: []string{"/bin/sh", "-c", "sleep 1004; echo never"}, Stdout: true})
	k.must(err)
	ws := k.webSocket(resp.Url)
	running("sleep 1004")
	ws.Close()
	gone("sleep 1004")
}

func TestExecAndAttachBadRequests(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	endedID := k.start(id, pod, k.shell("b", "exit 0"))
	k.wait(endedID)
	ttyID := k.start(id, pod, k.shell("c", "exec sleep 600", func(c *runtimeapi.ContainerConfig) { c.Tty = true }))
	for name, c := range map[string]struct {
		req  *runtimeapi.ExecRequest
		code codes.Code
	}{
		"no id":     {&runtimeapi.ExecRequest{Cmd: []string{"true"}, Stdout: true}, codes.InvalidArgument},
		"unknown":   {&runtimeapi.ExecRequest{ContainerId: "none", Cmd: []string{"true"}, Stdout: true}, codes.NotFound},
		"ended":     {&runtimeapi.ExecRequest{ContainerId: endedID, Cmd: []string{"true"}, Stdout: true}, codes.FailedPrecondition},
		"no cmd":    {&runtimeapi.ExecRequest{ContainerId: cid, Stdout: true}, codes.InvalidArgument},
		"no stream": {&runtimeapi.ExecRequest{ContainerId: cid, Cmd: []string{"true"}}, codes.InvalidArgument},
		"both":      {&runtimeapi.ExecRequest{ContainerId: cid, Cmd: []string{"true"}, Tty: true, Stdout: true, Stderr: true}, codes.InvalidArgument},
	} {
		if _, err := k.runtime().Exec(k.ctx, c.req); err == nil {
			t.Errorf("exec, %s: no error", name)
		} else {
			k.refused(err, c.code)
		}
	}
	for name, c := range map[string]struct {
		req  *runtimeapi.AttachRequest
		code codes.Code
	}{
		"unknown":      {&runtimeapi.AttachRequest{ContainerId: "none", Stdout: true}, codes.NotFound},
		"ended":        {&runtimeapi.AttachRequest{ContainerId: endedID, Stdout: true}, codes.FailedPrecondition},
		"no stream":    {&runtimeapi.AttachRequest{ContainerId: cid}, codes.InvalidArgument},
		"no stdin":     {&runtimeapi.AttachRequest{ContainerId: cid, Stdin: true, Stdout: true}, codes.FailedPrecondition},
		"no tty":       {&runtimeapi.AttachRequest{ContainerId: cid, Tty: true, Stdout: true}, codes.InvalidArgument},
		"a tty":        {&runtimeapi.AttachRequest{ContainerId: ttyID, Stdout: true}, codes.InvalidArgument},
		"tty no stdin": {&runtimeapi.AttachRequest{ContainerId: ttyID, Tty: true, Stdin: true, Stdout: true}, codes.FailedPrecondition},
	} {
		if _, err := k.runtime().Attach(k.ctx, c.req); err == nil {
			t.Errorf("attach, %s: no error", name)
		} else {
			k.refused(err, c.code)
		}
	}
}

// A token is good for one use of the kind that it was given for.
func TestTokensAreForOneUse(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	cid := k.start(id, pod, k.shell("a", "exec sleep 600"))
	url := k.execURL(cid, false, "true")
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Errorf("URL %s is not on loopback", url)
	}
	k.connect(url, "stdin", "stdout", "stderr").exits(0)
	stale := k.execURL(cid, false, "true")
	for name, u := range map[string]string{
		"used":       url,
		"wrong kind": strings.Replace(stale, "/exec/", "/attach/", 1),
		"its kind":   stale, // the wrong use was its one use
		"invented":   url[:strings.LastIndex(url, "/")] + "/AAAAAAAA",
		"none":       url[:strings.LastIndex(url, "/")],
	} {
		if name == "its kind" {
			continue
		}
		resp, err := http.Post(u, "", nil)
		k.must(err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", name, resp.StatusCode)
		}
	}
	if conn, err := testenv.DialSPDY(stale, "v4.channel.k8s.io", nil); err == nil {
		conn.Close()
		t.Error("a token could be used after a wrong use")
	}
}
