package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// meter notes how long each request took, by method. Nothing is asserted of it.
type meter struct {
	mu    sync.Mutex
	calls map[string][]time.Duration // +checklocks:mu
}

// client is one whose requests are noted. The pods that it makes are to be noted
// at the node's own.
func (m *meter) client(k kit) *testenv.Client {
	k.Helper()
	c, err := testenv.Dial(k.env.Endpoint, grpc.WithChainUnaryInterceptor(m.intercept))
	k.must(err)
	k.Cleanup(func() { c.Close() })
	return c
}

func (m *meter) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	begin := time.Now()
	err := invoke(ctx, method, req, reply, cc, opts...)
	took := time.Since(begin)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.calls == nil {
		m.calls = map[string][]time.Duration{}
	}
	name := filepath.Base(method)
	m.calls[name] = append(m.calls[name], took)
	return err
}

// latency is what the calls of one method took, in milliseconds.
type latency struct {
	Method        string
	Calls         int
	P50, P99, Max float64
}

func (m *meter) latencies() []latency {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []latency
	for name, took := range m.calls {
		slices.Sort(took)
		out = append(out, latency{name, len(took), quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1)})
	}
	slices.SortFunc(out, func(a, b latency) int { return strings.Compare(a.Method, b.Method) })
	return out
}

// quantile is in milliseconds; what it looks at is sorted.
func quantile(took []time.Duration, part float64) float64 {
	return float64(took[int(part*float64(len(took)-1))].Microseconds()) / 1000
}

// report prints the latencies, and keeps those of a long run in a file.
func (m *meter) report(t *testing.T, repo string, long bool, about map[string]any) {
	t.Helper()
	all := m.latencies()
	for _, l := range all {
		t.Logf("%-22s %6d calls, p50 %8.2f ms, p99 %8.2f ms, at most %8.2f ms", l.Method, l.Calls, l.P50, l.P99, l.Max)
	}
	if !long {
		return
	}
	about["latencies"] = all
	data, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(repo, "dist", "load.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("written to %s", path)
}

// consumption is what a node's daemon and its pods consist of at one moment, in
// pieces and bytes.
type consumption struct {
	Goroutines, Descriptors, Threads, Heap int // of the daemon
	Pss                                    int // of the daemon

	Processes          int // of pods
	SandboxDescriptors int
	SandboxRSS         int
}

func (c consumption) String() string {
	return fmt.Sprintf("daemon: %d goroutines, %d descriptors, %d threads, heap %d KiB, Pss %d KiB; pods: %d processes, %d descriptors, RSS %d MiB",
		c.Goroutines, c.Descriptors, c.Threads, c.Heap>>10, c.Pss>>10, c.Processes, c.SandboxDescriptors, c.SandboxRSS>>20)
}

var dumped = regexp.MustCompile(`"Daemon" goroutines=(\d+) descriptors=(\d+) heapBytes=(\d+)`)

// consumed asks the daemon, by SIGUSR1 and from its log, and the kernel.
func consumed(k kit) consumption {
	k.Helper()
	var c consumption
	before := len(dumped.FindAllString(readFile(k, k.env.LogFile()), -1))
	k.must(unix.Kill(k.env.Daemon.PID(), unix.SIGUSR1))
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		found := dumped.FindAllStringSubmatch(readFile(k, k.env.LogFile()), -1)
		if len(found) > before {
			for i, to := range []*int{&c.Goroutines, &c.Descriptors, &c.Heap} {
				n, err := strconv.Atoi(found[len(found)-1][i+1])
				k.must(err)
				*to = n
			}
			break
		}
		if time.Now().After(deadline) {
			k.Fatal("the daemon said nothing on SIGUSR1")
		}
	}
	daemon := strconv.Itoa(k.env.Daemon.PID())
	c.Pss, c.Threads = procField(readFile(k, "/proc/"+daemon+"/smaps_rollup"), "Pss:")<<10, entriesIn("/proc/"+daemon+"/task")
	o, err := k.env.Observe()
	k.must(err)
	for _, p := range o["process"] {
		pid, _, _ := strings.Cut(p, " ")
		c.Processes++
		c.SandboxDescriptors += entriesIn("/proc/" + pid + "/fd")
		// Pss would be exact, and takes the kernel a second for a hundred pods.
		status, _ := os.ReadFile("/proc/" + pid + "/status") // it may be gone
		c.SandboxRSS += procField(string(status), "RssAnon:") << 10
	}
	return c
}

func entriesIn(dir string) int {
	entries, _ := os.ReadDir(dir)
	return len(entries)
}

// procField reads a number of a file of /proc with names and values; 0 where it is not.
func procField(text, name string) int {
	_, rest, _ := strings.Cut(text, name)
	var n int
	_, _ = fmt.Sscan(rest, &n)
	return n
}

// Room for what comes and goes by itself, such as timers and idle connections.
// What leaks does so with each request, of which there are hundreds.
const (
	roomPieces  = 12
	roomThreads = 32 // the Go runtime keeps those that it needed at once
	roomHeap    = 4 << 20
	roomPss     = 16 << 20
	roomSandbox = 2 // descriptors of each process
)

// above says what is more now than before.
func (c consumption) above(before consumption) []string {
	var out []string
	for _, p := range []struct {
		what               string
		now, before, allow int
	}{
		{"goroutines", c.Goroutines, before.Goroutines, roomPieces},
		{"descriptors", c.Descriptors, before.Descriptors, roomPieces},
		{"threads", c.Threads, before.Threads, roomThreads},
		{"bytes of heap", c.Heap, before.Heap, before.Heap/4 + roomHeap},
		{"bytes of memory", c.Pss, before.Pss, before.Pss/4 + roomPss},
		{"processes of pods", c.Processes, before.Processes, 0},
		{"descriptors of pods", c.SandboxDescriptors, before.SandboxDescriptors, roomSandbox * before.Processes},
		{"bytes of pods", c.SandboxRSS, before.SandboxRSS, before.SandboxRSS / 2},
	} {
		if p.now > p.before+p.allow {
			out = append(out, fmt.Sprintf("%d %s, %d before", p.now, p.what, p.before))
		}
	}
	return out
}

// flat waits until the node consists of no more than before. Some things go a
// moment after the request that ended them.
func flat(k kit, when string, before consumption) consumption {
	k.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		now := consumed(k)
		more := now.above(before)
		if len(more) == 0 || time.Now().After(deadline) {
			for _, m := range more {
				k.Errorf("%s: %s", when, m)
			}
			return now
		}
	}
}
