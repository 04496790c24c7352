package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// testConfig gives a container its own directories. Failures to move output fail the
// test unless it sets OnError itself.
func testConfig(t testing.TB) Config {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "io"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Config{
		Dir:     filepath.Join(dir, "io"),
		LogPath: filepath.Join(dir, "pods", "c", "0.log"),
		OnError: func(err error) { t.Errorf("output held up: %v", err) },
	}
}

func mustCreate(t testing.TB, cfg Config) *Streams {
	t.Helper()
	s, err := Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustOpen(t testing.TB, cfg Config) *Streams {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// container opens the container's side, which stays open over restarts.
func container(t testing.TB, s *Streams) [3]*os.File {
	t.Helper()
	files, err := s.Stdio()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	})
	return files
}

func write(t testing.TB, f *os.File, data string) {
	t.Helper()
	if _, err := f.WriteString(data); err != nil {
		t.Fatal(err)
	}
}

func finish(t testing.TB, s *Streams) {
	t.Helper()
	if err := s.Finish(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func readLog(t testing.TB, path string) []record {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parseRecords(t, raw)
}

// printed is what the reader of a log would see of one stream.
func printed(t testing.TB, path, stream string) string {
	t.Helper()
	var b strings.Builder
	for _, r := range readLog(t, path) {
		if r.stream == stream {
			b.Write(r.content)
		}
	}
	return b.String()
}

// eventually waits for a condition that has to come true; no speed is asked.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for range 3000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func logHas(path, text string) func() bool {
	return func() bool {
		raw, _ := os.ReadFile(path)
		return bytes.Contains(raw, []byte(text))
	}
}

func TestFinishDrains(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	io := container(t, s)
	out := strings.Repeat("0123456789\n", 80_000) + "open"
	write(t, io[2], "to stderr\n")
	write(t, io[1], out)
	eventually(t, "stderr", logHas(cfg.LogPath, "to stderr"))
	finish(t, s)
	if got := printed(t, cfg.LogPath, "stdout"); got != out {
		t.Errorf("stdout has %d bytes, want %d", len(got), len(out))
	}
	if got := printed(t, cfg.LogPath, "stderr"); got != "to stderr\n" {
		t.Errorf("stderr is %q", got)
	}
	records := readLog(t, cfg.LogPath)
	if last := records[len(records)-1]; last.tag != "P" || string(last.content) != "open" {
		t.Errorf("last record is %s %q, want the open line tagged P", last.tag, last.content)
	}
	finish(t, s) // idempotent
	finish(t, mustOpen(t, cfg))
	if again := readLog(t, cfg.LogPath); len(again) != len(records) {
		t.Errorf("finishing again made %d records of %d", len(again), len(records))
	}
	if info, err := os.Stat(cfg.LogPath); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("log mode %v, %v, want 0640", info.Mode(), err)
	}
}

func TestStreamsLogALineWhenItEnds(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	io := container(t, s)
	write(t, io[1], "first\nsec")
	eventually(t, "the first line", logHas(cfg.LogPath, "first"))
	write(t, io[2], "other stream\n")
	eventually(t, "the other stream", logHas(cfg.LogPath, "other stream"))
	if logHas(cfg.LogPath, "sec")() {
		t.Error("an open line is in the log")
	}
	write(t, io[1], "ond\n")
	eventually(t, "the whole line", logHas(cfg.LogPath, "stdout F second\n"))
}

func TestStreamsLogAnyBytesAndLengths(t *testing.T) {
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	for name, out := range map[string]string{
		"every byte":      strings.Repeat(string(all[:]), 3000),
		"only newlines":   strings.Repeat("\n", 300_000),
		"one huge line":   strings.Repeat("z", 3<<20) + "\n",
		"huge, not ended": strings.Repeat("z", 1<<20+5),
		"16 KiB lines":    strings.Repeat(strings.Repeat("k", maxContent)+"\n", 50),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			s := mustCreate(t, cfg)
			write(t, container(t, s)[1], out)
			finish(t, s)
			if got := printed(t, cfg.LogPath, "stdout"); got != out {
				t.Errorf("%d bytes came out as %d others", len(out), len(got))
			}
			for _, r := range readLog(t, cfg.LogPath) {
				if len(bytes.TrimSuffix(r.content, []byte("\n"))) > maxContent {
					t.Fatalf("record of %d bytes", len(r.content))
				}
			}
		})
	}
}

func TestReopen(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	io := container(t, s)
	write(t, io[1], "old\nhalf")
	eventually(t, "the old line", logHas(cfg.LogPath, "old"))
	rotated := cfg.LogPath + ".20260102-030405"
	if err := os.Rename(cfg.LogPath, rotated); err != nil {
		t.Fatal(err)
	}
	write(t, io[2], "before reopen\n")
	eventually(t, "a line in the renamed log", logHas(rotated, "before reopen"))
	if err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	write(t, io[1], " line\n")
	eventually(t, "a line in the new log", logHas(cfg.LogPath, "half line"))
	if got := printed(t, rotated, "stdout"); got != "old\n" {
		t.Errorf("the rotated log has %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Reopen(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("reopen after close: %v, want ErrFailedPrecondition", err)
	}
}

// TestStreamsLogThatIsTruncated empties the log under the pump, as `truncate -s 0`
// does: the next records begin at its start and not behind a hole.
func TestStreamsLogThatIsTruncated(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	io := container(t, s)
	write(t, io[1], "one\n")
	eventually(t, "one", logHas(cfg.LogPath, "one"))
	if err := os.Truncate(cfg.LogPath, 0); err != nil {
		t.Fatal(err)
	}
	write(t, io[1], "two\n")
	finish(t, s)
	if got := printed(t, cfg.LogPath, "stdout"); got != "two\n" {
		t.Errorf("log has %q", got)
	}
}

func TestCloseAndOpen(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	io := container(t, s)
	var want strings.Builder
	for i := range 20 {
		line := fmt.Sprintf("line %d, ", i) // an open line survives, too
		write(t, io[1], line)
		want.WriteString(line)
		if i%3 == 0 {
			write(t, io[1], "\n")
			want.WriteString("\n")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, io[1], "while away\n")
		want.WriteString("while away\n")
		s = mustOpen(t, cfg)
	}
	finish(t, s)
	if got := printed(t, cfg.LogPath, "stdout"); got != want.String() {
		t.Errorf("got %q, want %q", got, want.String())
	}
}

// TestStreamsCutTheSpool checks that a long run leaves little on disk.
func TestStreamsCutTheSpool(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	io := container(t, s)
	for range 50 { // the tail of each round is an open line
		write(t, io[1], strings.Repeat("some line\n", 10_000)+"tail")
	}
	eventually(t, "an empty pipe", func() bool {
		n, err := unix.IoctlGetInt(int(io[1].Fd()), unix.TIOCINQ)
		return err == nil && n == 0
	})
	eventually(t, "a small spool", func() bool {
		info, err := os.Stat(spoolPath(cfg.Dir, stdout))
		return err == nil && info.Size() < cutSize
	})
	finish(t, s)
}

func TestStreamsWithoutALog(t *testing.T) {
	cfg := testConfig(t)
	cfg.LogPath, cfg.Stdin, cfg.Terminal = "", true, true
	s := mustCreate(t, cfg)
	io := container(t, s)
	if io[2] != nil {
		t.Error("a terminal has a stderr")
	}
	write(t, io[1], strings.Repeat("x", 5<<20)) // more than the pipe holds
	if info, err := io[0].Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("stdin is %v, %v, want a FIFO", info.Mode(), err)
	}
	if err := s.Reopen(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, cfg)
	write(t, io[1], strings.Repeat("x", 5<<20))
	finish(t, s)
}

func TestCreateRefuses(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	if _, err := Create(cfg); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("create twice: %v, want ErrAlreadyExists", err)
	}
	finish(t, s)
	if err := Remove(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := Remove(cfg.Dir); err != nil {
		t.Errorf("remove twice: %v", err)
	}
	if entries, _ := os.ReadDir(cfg.Dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := Open(cfg); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("open nothing: %v, want ErrNotFound", err)
	}

	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.LogPath += ".link"
	if err := os.Symlink(victim, cfg.LogPath); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(cfg); err == nil {
		t.Error("a symbolic link as log was followed")
	}
	cfg.LogPath = filepath.Dir(cfg.LogPath)
	if _, err := Create(cfg); err == nil {
		t.Error("a directory as log was opened")
	}
	if entries, _ := os.ReadDir(cfg.Dir); len(entries) != 0 {
		t.Errorf("a failed Create left %v", entries)
	}
}
