package logs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The test program plays three parts in processes of its own: "pump", the daemon
// that gets killed, and "writer", a container's process; the test itself keeps
// the FIFOs open as a sandbox does.
const roleVariable = "LOGS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "pump":
		playPump(Config{Dir: os.Args[1], LogPath: os.Args[2]})
	case "writer":
		playWriter(os.Args[1])
	default:
		os.Exit(m.Run())
	}
}

// playPump pumps until it is killed; each line on stdin asks for a Reopen, and
// its end for Finish.
func playPump(cfg Config) {
	cfg.OnError = func(err error) { fmt.Fprintln(os.Stderr, err) }
	s, err := Open(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if err := s.Reopen(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := s.Finish(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// playWriter writes numbered lines as fast as it can until its stdin ends, then
// says how many. Writes end anywhere in a line.
func playWriter(path string) {
	out, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	w := bufio.NewWriterSize(out, 7777)
	for n := 0; ; n++ {
		select {
		case <-stop:
			w.Flush()
			fmt.Println(n)
			return
		default:
			fmt.Fprintf(w, "%d %s\n", n, payload(n))
		}
	}
}

// payload is what follows the number of a line: mostly short, some beyond a
// record, some beyond a batch.
func payload(n int) string {
	size := n * 7919 % 211
	switch {
	case n%50_021 == 50_020:
		size = 300_000
	case n%2003 == 2002:
		size = maxContent + n%2000
	}
	return strings.Repeat(string(rune('a'+n%26)), size)
}

type part struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startPart(t *testing.T, role string, args ...string) *part {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &part{cmd, in, bufio.NewReader(out)}
}

func (p *part) readLine(t *testing.T) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("part died: %v", err)
	}
	return strings.TrimSpace(line)
}

// TestStreamsLoseNothingOverKills kills the daemon again and again at random moments
// while two processes print at full speed and the log is rotated.
func TestStreamsLoseNothingOverKills(t *testing.T) {
	kills := 60
	if testing.Short() {
		kills = 10
	}
	if os.Getenv("CRI_SANDBOX_SOAK") != "" { // make soak
		kills = 5000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	container(t, s) // keeps the pipes alive
	s.Close()
	var writers [streamCount]*part
	for i, name := range streamNames {
		writers[i] = startPart(t, "writer", filepath.Join(cfg.Dir, name))
	}

	var logs []string // rotated, oldest first
	rotate := func() {
		name := fmt.Sprintf("%s.%06d", cfg.LogPath, len(logs))
		if err := os.Rename(cfg.LogPath, name); err == nil {
			logs = append(logs, name)
		}
	}
	for range kills {
		pump := startPart(t, "pump", cfg.Dir, cfg.LogPath)
		if random.IntN(4) > 0 { // else it is killed while it starts
			pump.readLine(t)
		}
		time.Sleep(time.Duration(random.IntN(12_000)) * time.Microsecond)
		rotation := random.IntN(4)
		if rotation == 0 {
			rotate()
			io.WriteString(pump.in, "reopen\n")
			time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
		}
		pump.cmd.Process.Kill()
		pump.cmd.Wait()
		if rotation == 1 {
			rotate()
		}
	}

	pump := startPart(t, "pump", cfg.Dir, cfg.LogPath)
	pump.readLine(t)
	var counts [streamCount]int
	var stopping sync.WaitGroup
	for i, w := range writers {
		w.in.Close()
		stopping.Go(func() {
			line, _ := w.out.ReadString('\n')
			counts[i], _ = strconv.Atoi(strings.TrimSpace(line))
		})
	}
	stopping.Wait()
	pump.in.Close()
	if err := pump.cmd.Wait(); err != nil {
		t.Fatalf("finish: %v", err)
	}
	checkNumbered(t, append(logs, cfg.LogPath), counts)
	t.Logf("%d and %d lines, %d logs, %d kills", counts[stdout], counts[stderr], len(logs)+1, kills)
}

// checkNumbered looks for every line of the writers, once, whole and in order.
func checkNumbered(t *testing.T, logs []string, counts [streamCount]int) {
	t.Helper()
	var next [streamCount]int
	var line [streamCount][]byte
	for _, path := range logs {
		for _, r := range readLog(t, path) {
			i := stdout
			if r.stream == "stderr" {
				i = stderr
			}
			line[i] = append(line[i], r.content...)
			if r.tag == "P" {
				continue
			}
			if want := fmt.Appendf(nil, "%d %s\n", next[i], payload(next[i])); !bytes.Equal(line[i], want) {
				t.Fatalf("%s, %s: got line %.60q of %d bytes, want %.60q of %d",
					filepath.Base(path), r.stream, line[i], len(line[i]), want, len(want))
			}
			next[i]++
			line[i] = line[i][:0]
		}
	}
	if next != counts || counts[stdout] == 0 || counts[stderr] == 0 {
		t.Errorf("logs have %v lines, written were %v", next, counts)
	}
}
