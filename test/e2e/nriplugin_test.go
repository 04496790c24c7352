package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// nriEvent is a line of the plugin's log, see hack/nriplugin.
type nriEvent struct {
	Event, Pod, Container, State, Error, NetNS, ID string
	Env, Pods, Containers, Failed                  []string
	Annotations                                    map[string]string
	Memory                                         int64
}

// nriNode is a node that lets plugins in, with a program of one.
type nriNode struct {
	kit
	socket, program string
}

func newNRINode(t *testing.T, config string) nriNode {
	t.Helper()
	dir, err := os.MkdirTemp("", "nri") // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := nriNode{socket: filepath.Join(dir, "directory", "nri.sock"), program: filepath.Join(dir, "nriplugin")}
	build := exec.Command("go", "build", "-o", n.program, "../../hack/nriplugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v: %s", err, out)
	}
	n.kit = ownNode(t, testenv.Options{Config: config, DaemonArgs: []string{
		"--log-level", "2", "--nri-socket", n.socket,
	}})
	return n
}

// nriPlugin is a running plugin. log is where it notes events, orders what it is
// told to do.
type nriPlugin struct {
	kit
	log, orders string
	cmd         *exec.Cmd
	stdin       io.WriteCloser
	done        chan struct{} // closed when the process has ended
}

// plugin starts a plugin and waits until the daemon has told it what there is.
func (n nriNode) plugin(t *testing.T, args ...string) *nriPlugin {
	t.Helper()
	return n.pluginIn(t, t.TempDir(), args...)
}

// pluginIn uses a directory that may hold orders already.
func (n nriNode) pluginIn(t *testing.T, dir string, args ...string) *nriPlugin {
	t.Helper()
	p := &nriPlugin{kit: n.kit, log: filepath.Join(dir, "log"), orders: filepath.Join(dir, "orders"), done: make(chan struct{})}
	p.T = t
	p.cmd = exec.Command(n.program, append([]string{"-socket", n.socket, "-log", p.log, "-orders", p.orders}, args...)...)
	var output bytes.Buffer
	p.cmd.Stdout, p.cmd.Stderr = &output, &output
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	n.must(err)
	n.must(p.cmd.Start())
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("output of the plugin:\n%s", output.String())
		}
	})
	p.await("Synchronize", "")
	return p
}

func (p *nriPlugin) order(event string, what map[string]any) {
	p.Helper()
	data, err := json.Marshal(map[string]any{event: what})
	p.must(err)
	p.must(os.WriteFile(p.orders+".new", data, 0o644))
	p.must(os.Rename(p.orders+".new", p.orders))
}

func (p *nriPlugin) noOrders() { p.must(os.WriteFile(p.orders, []byte("{}"), 0o644)) }

// events are all of a pod so far, or all when pod is empty.
func (p *nriPlugin) events(pod string) []nriEvent {
	p.Helper()
	data, err := os.ReadFile(p.log)
	if os.IsNotExist(err) {
		return nil
	}
	p.must(err)
	var out []nriEvent
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e nriEvent
		if json.Unmarshal(lines.Bytes(), &e) == nil && (pod == "" || e.Pod == pod) {
			out = append(out, e)
		}
	}
	return out
}

// await waits for the last event of a name, of a container if one is named.
func (p *nriPlugin) await(event, container string) nriEvent {
	p.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		for _, e := range slices.Backward(p.events("")) {
			if e.Event == event && (container == "" || e.Container == container) {
				return e
			}
		}
		if time.Now().After(deadline) {
			p.Fatalf("the plugin was not told of %s %s; it knows %v", event, container, names(p.events("")))
		}
	}
}

// ask sends an unasked request and returns the answer.
func (p *nriPlugin) ask(request map[string]any) nriEvent {
	p.Helper()
	count := func() (n int) {
		for _, e := range p.events("") {
			if e.Event == "Answer" {
				n++
			}
		}
		return n
	}
	before := count()
	data, err := json.Marshal(request)
	p.must(err)
	_, err = p.stdin.Write(append(data, '\n'))
	p.must(err)
	for deadline := time.Now().Add(limit); count() == before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.Fatal("no answer to an unasked request")
		}
	}
	return p.await("Answer", "")
}

// names are events as EVENT or EVENT(CONTAINER).
func names(events []nriEvent) (out []string) {
	for _, e := range events {
		if e.Container == "" {
			out = append(out, e.Event)
		} else {
			out = append(out, fmt.Sprintf("%s(%s)", e.Event, e.Container))
		}
	}
	return out
}

// follows checks that events are exactly those wanted, in that order.
func (p *nriPlugin) follows(events []nriEvent, want string) {
	p.Helper()
	if got := strings.Join(names(events), " "); got != want {
		p.Errorf("events\n %s\nwant\n %s", got, want)
	}
}
