package e2e

import (
	"io"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

func withStdin(c *runtimeapi.ContainerConfig) { c.Stdin = true }

func TestAttach(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	c := k.shell("a", "echo before; while read line; do echo got $line; echo err $line >&2; done; echo end of stdin; exit 3", withStdin)
	cid := k.start(id, pod, c)
	k.logHas(pod, c, "before")
	a, b := k.attach(cid, true, false), k.attach(cid, false, false)
	a.send("one\n")
	for _, r := range []*remote{a, b} {
		r.stdout.wait(k.kit, "got one\n")
		r.stderr.wait(k.kit, "err one\n")
		if strings.Contains(r.stdout.String(), "before") {
			t.Error("attach shows what was printed earlier")
		}
	}
	// Without stdinOnce one client's end is not the container's.
	a.endStdin()
	a.exits(0)
	a = k.attach(cid, true, false)
	a.send("two\n")
	b.stdout.wait(k.kit, "got two\n")
	a.conn.Close()
	_, err := k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: cid})
	k.must(err)
	b.exits(0) // the end of the container is the end of attach
	k.wants(k.log(pod, c), "got one", "got two", "err two")
	if strings.Contains(k.log(pod, c), "end of stdin") {
		t.Error("the container saw an end of its stdin")
	}
}

func TestAttachStdinOnce(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	once := func(c *runtimeapi.ContainerConfig) { c.Stdin, c.StdinOnce = true, true }
	for name, leave := range map[string]func(*remote){
		"half-close": func(r *remote) { r.endStdin() },
		"goes away":  func(r *remote) { r.conn.Close() },
	} {
		c := k.shell(strings.ReplaceAll(name, " ", "-"), "echo up; cat; echo end of stdin", once)
		cid := k.start(id, pod, c)
		k.logHas(pod, c, "up")
		k.attach(cid, false, false).conn.Close() // who sends nothing is not the one
		r := k.attach(cid, true, false)
		r.send("hello\n")
		r.stdout.wait(k.kit, "hello")
		_, err := k.runtime().Attach(k.ctx, &runtimeapi.AttachRequest{ContainerId: cid, Stdin: true, Stdout: true})
		if err == nil || !strings.Contains(err.Error(), "stdinOnce") {
			t.Errorf("%s: a second client for stdin: %v", name, err)
		}
		leave(r)
		if st := k.wait(cid); st.ExitCode != 0 {
			t.Errorf("%s: %v", name, st)
		}
		k.wants(k.log(pod, c), "hello", "end of stdin")
		if name == "half-close" {
			r.exits(0)
			k.wants(r.stdout.String(), "end of stdin")
		}
	}
}

// Two clients, of which one stops to read: it is dropped. The other client and
// the log get everything.
func TestAttachDropsAClientThatStopsReading(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	// Slowly enough for the one that reads, and more than the other's backlog.
	const lines, size = 400, 40000
	c := k.shell("a", "read go; line=$(head -c 39990 /dev/zero | tr '\\0' x); i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i $line; sleep 0.005; done; echo the end", withStdin)
	cid := k.start(id, pod, c)
	lazy, keen := k.attach(cid, false, false, "lazy"), k.attach(cid, true, false)
	keen.send("go\n")
	if st := k.wait(cid); st.ExitCode != 0 {
		t.Fatalf("status %v", st)
	}
	log := k.log(pod, c)
	if !strings.HasSuffix(log, "the end\n") || len(log) < lines*(size-10) {
		t.Errorf("the log has %d bytes", len(log))
	}
	keen.exits(0)
	if got := keen.stdout.String(); got != log {
		t.Errorf("the client that reads got %d bytes of %d", len(got), len(log))
	}
	// What was on the way to the other is all that it gets.
	if n, _ := io.Copy(io.Discard, lazy.out); n == 0 || n >= int64(len(log)) {
		t.Errorf("the client that did not read got %d bytes of %d", n, len(log))
	}
	<-lazy.conn.CloseChan()
}

func TestAttachToATerminal(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	c := k.shell("a", "trap 'echo interrupted' INT; trap 'echo window $(stty size)' WINCH; echo up; while :; do sleep 0.05; done", withTerminal)
	cid := k.start(id, pod, c)
	k.logHas(pod, c, "up")
	a, b := k.attach(cid, true, true), k.attach(cid, true, true)
	a.size(31, 77)
	a.stdout.wait(k.kit, "window 31 77\r\n")
	b.stdout.wait(k.kit, "window 31 77\r\n")
	b.send("\x03")
	a.stdout.wait(k.kit, "interrupted\r\n")
	a.conn.Close()
	b.size(20, 40)
	b.stdout.wait(k.kit, "window 20 40\r\n")
	_, err := k.runtime().StopContainer(k.ctx, &runtimeapi.StopContainerRequest{ContainerId: cid})
	k.must(err)
	b.exits(0)
	k.wants(k.log(pod, c), "up\r\n", "interrupted\r\n")
}

// TestLogsHaveTheLastOutputOfATerminal: all of it is in the log when the container has
// ended.
func TestLogsHaveTheLastOutputOfATerminal(t *testing.T) {
	k := newKit(t)
	id, pod := k.pod()
	for range 5 {
		c := k.shell("a"+testenv.NewUID()[:8], "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; exit 4", withTerminal)
		cid := k.start(id, pod, c)
		if st := k.wait(cid); st.ExitCode != 4 {
			t.Fatalf("status %v", st)
		}
		if log := k.log(pod, c); strings.Count(log, "\n") != 3000 || !strings.HasSuffix(log, "line 3000\r\n") {
			t.Fatalf("%d lines, the end is %q", strings.Count(log, "\n"), log[max(0, len(log)-50):])
		}
	}
}

// TestRecoverKeepsTerminalsAndStdin kills the daemon while clients are there.
func TestRecoverKeepsTerminalsAndStdin(t *testing.T) {
	k := streamKit{ownNode(t, testenv.Options{})}
	id, pod := k.pod()
	c := k.shell("tty", "echo up; while read line; do echo got $line; done; echo hung up", withTerminal)
	plain := k.shell("plain", "echo up; while read line; do echo got $line; done; echo end of stdin", withStdin)
	once := k.shell("once", "echo up; cat; echo end of stdin", func(c *runtimeapi.ContainerConfig) { c.Stdin, c.StdinOnce = true, true })
	ids := map[*runtimeapi.ContainerConfig]string{}
	for _, cfg := range []*runtimeapi.ContainerConfig{c, plain, once} {
		ids[cfg] = k.start(id, pod, cfg)
		k.logHas(pod, cfg, "up")
	}
	r := k.attach(ids[once], true, false)
	r.send("hello\n")
	r.stdout.wait(k.kit, "hello")
	for range 3 {
		_, err := k.env.Restart(k.ctx)
		k.must(err)
		r := k.attach(ids[c], true, true)
		r.send("on a terminal\n")
		r.stdout.wait(k.kit, "got on a terminal\r\n")
		r = k.attach(ids[plain], true, false)
		r.send("through a pipe\n")
		r.stdout.wait(k.kit, "got through a pipe\n")
	}
	if log := k.log(pod, c); strings.Count(log, "got on a terminal") != 3 || strings.Contains(log, "hung up") {
		t.Errorf("the terminal's log:\n%s", log)
	}
	if log := k.log(pod, plain); strings.Contains(log, "end of stdin") {
		t.Errorf("the plain container's log:\n%s", log)
	}
	// The client of stdinOnce went with the first daemon.
	if st := k.wait(ids[once]); st.ExitCode != 0 {
		t.Errorf("the container with stdinOnce: %v", st)
	}
	k.wants(k.log(pod, once), "hello", "end of stdin")
}
