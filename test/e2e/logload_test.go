package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestLogsLoseNothingOverKills kills the daemon at random times while a container prints
// numbered lines, and finds each of them once, whole and in order.
func TestLogsLoseNothingOverKills(t *testing.T) {
	const chunks, kills = 200, 20
	const lines = 1_000_000
	k := ownNode(t, testenv.Options{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	id, pod := k.pod()
	gate := t.TempDir()
	k.must(os.Chmod(gate, 0o777))
	// A chunk comes in blocks that end within lines, and then line by line. The
	// pauses make room for all the kills, and the last chunk waits for them.
	c := k.shell("count", fmt.Sprintf(`n=0; while [ $n -lt %d ]; do
		e=$((n+%d)); seq $((n+1)) $((e-100)); n=$((e-100))
		while [ $n -lt $e ]; do n=$((n+1)); echo $n; done
		sleep 0.02
		while [ $e = %d -a ! -e /gate/go ]; do sleep 0.01; done
	done; echo end`, lines, lines/chunks, lines-lines/chunks), func(c *runtimeapi.ContainerConfig) {
		c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/gate", HostPath: gate}}
	})
	cid := k.start(id, pod, c)
	for range kills {
		time.Sleep(time.Duration(random.Int64N(int64(250 * time.Millisecond))))
		_, err := k.env.Restart(k.ctx)
		k.must(err)
	}
	k.must(os.WriteFile(gate+"/go", nil, 0o644))
	if st := k.wait(cid); st.ExitCode != 0 || st.Reason != "Completed" {
		t.Fatalf("status = %v", st)
	}
	file, err := os.Open(testenv.LogPath(pod, c))
	k.must(err)
	defer file.Close()
	records := bufio.NewScanner(file)
	for want := 1; records.Scan(); want++ {
		_, record, _ := strings.Cut(records.Text(), " ")
		expected := fmt.Sprintf("stdout F %d", want)
		if want == lines+1 {
			expected = "stdout F end"
		}
		if record != expected || want > lines+1 {
			t.Fatalf("record %d is %q", want, records.Text())
		}
		if want == lines+1 {
			return
		}
	}
	t.Fatalf("the log has no end: %v", records.Err())
}

// memoryRoom is how much more memory than before, in bytes, a daemon may take at
// its peak while containers print. It is a small part of what they print.
const memoryRoom = 48 << 20

// TestLogsDoNotGrowTheDaemon lets containers print, as fast as they can, what a
// careless reader would collect in memory: no newline at all, lines of 1 MB, and
// bytes that are no text.
func TestLogsDoNotGrowTheDaemon(t *testing.T) {
	const each = 96 << 20
	k := ownNode(t, testenv.Options{})
	id, pod := k.pod()
	k.start(id, pod, k.shell("warm", "echo up")) // what one container takes counts as before
	script := func(source string) string { return fmt.Sprintf("%s | head -c %d; echo; echo end", source, each) }
	before := peakMemory(k, true)
	var ids []string
	var ctrs []*runtimeapi.ContainerConfig
	for name, source := range map[string]string{
		"no-newline": "tr '\\0' x </dev/zero",
		"long-lines": `while :; do head -c 1000000 /dev/zero | tr '\0' y; echo; done`,
		"binary":     "cat /dev/urandom",
	} {
		c := k.shell(name, script(source))
		ids, ctrs = append(ids, k.start(id, pod, c)), append(ctrs, c)
	}
	for i, cid := range ids {
		if st := k.wait(cid); st.ExitCode != 0 {
			t.Errorf("%s: %v", ctrs[i].Metadata.Name, st)
		}
		if n := loggedBytes(k, testenv.LogPath(pod, ctrs[i])); n < each || n > each+1000 {
			t.Errorf("%s: %d bytes are in the log, %d were printed", ctrs[i].Metadata.Name, n, each)
		}
	}
	grown := peakMemory(k, false) - before
	t.Logf("the peak was %d KiB above", grown>>10)
	if grown > memoryRoom {
		t.Errorf("the daemon grew by %d MiB", grown>>20)
	}
}

// TestLogsOnAFullDiskHoldTheContainer: who prints faster than the disk takes it
// waits, and the daemon keeps none of it. When there is room again, all goes on.
func TestLogsOnAFullDiskHoldTheContainer(t *testing.T) {
	const lines = 2_000_000
	k := ownNode(t, testenv.Options{})
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		// The directory is its own, so that the rest of the node has room.
		k.must(os.MkdirAll(p.LogDirectory, 0o755))
		k.must(unix.Mount("tmpfs", p.LogDirectory, "tmpfs", 0, "size=1m"))
		k.Cleanup(func() { unix.Unmount(p.LogDirectory, unix.MNT_DETACH) })
	})
	c := k.shell("count", fmt.Sprintf("seq 1 %d; echo end", lines))
	before := peakMemory(k, true)
	cid := k.start(id, pod, c)
	for full := (unix.Statfs_t{Bavail: 1}); full.Bavail > 0; time.Sleep(5 * time.Millisecond) {
		k.must(unix.Statfs(pod.LogDirectory, &full))
	}
	// Time for a daemon that reads on to read on: the container has 14 MB to print,
	// and its pipe holds 1.
	time.Sleep(2 * time.Second)
	if st := k.status(cid); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container did not wait: %v", st)
	}
	if grown := peakMemory(k, false) - before; grown > memoryRoom/4 {
		t.Errorf("the daemon grew by %d MiB", grown>>20)
	}
	spools, err := filepath.Glob(filepath.Join(k.env.State, "pods", "*", "*", "streams", "*.spool"))
	k.must(err)
	for _, spool := range spools {
		fi, err := os.Stat(spool)
		k.must(err)
		if fi.Size() > 5<<18 { // one pipe, and what was there before
			t.Errorf("the daemon reads on: its spool has %d bytes", fi.Size())
		}
	}
	_, err = k.env.Restart(k.ctx) // what it holds is on disk
	k.must(err)
	k.must(unix.Mount("", pod.LogDirectory, "", unix.MS_REMOUNT, "size=256m"))
	k.wait(cid)
	text := k.log(pod, c)
	for n := 1; n <= lines; n++ {
		line, rest, _ := strings.Cut(text, "\n")
		if line != fmt.Sprint(n) {
			t.Fatalf("line %d reads %q", n, line)
		}
		text = rest
	}
	if text != "end\n" {
		t.Errorf("the log ends with %.100q", text)
	}
}

// loggedBytes counts what was printed, without what the log adds.
func loggedBytes(k kit, path string) int64 {
	k.Helper()
	f, err := os.Open(path)
	k.must(err)
	defer f.Close()
	var n int64
	for r := bufio.NewReaderSize(f, 1<<20); ; {
		record, err := r.ReadSlice('\n')
		if err != nil {
			return n
		}
		fields := bytes.SplitN(record, []byte(" "), 4)
		n += int64(len(fields[3]))
		if fields[2][0] == 'P' {
			n-- // the newline is the log's
		}
	}
}

// peakMemory is the largest that the daemon's memory has been, in bytes, since it
// was asked to forget; proc(5), VmHWM and clear_refs.
func peakMemory(k kit, forget bool) int64 {
	k.Helper()
	dir := fmt.Sprintf("/proc/%d/", k.env.Daemon.PID())
	if forget {
		k.must(os.WriteFile(dir+"clear_refs", []byte("5"), 0))
	}
	status, err := os.ReadFile(dir + "status")
	k.must(err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	k.must(err)
	return kib << 10
}
