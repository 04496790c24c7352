package logs

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// A crash is played by stopping half way through a batch, by the same steps that
// writeBatchLocked takes, and by putting older files back.

// stopped creates streams, lets them write first, stops the pumps, and spools
// text that is not framed yet.
func stopped(t *testing.T, cfg Config, first, spooled string) (*Streams, [3]*os.File) {
	t.Helper()
	s := mustCreate(t, cfg)
	io := container(t, s)
	write(t, io[1], first)
	eventually(t, "the first line", logHas(cfg.LogPath, "first\n"))
	s.halt()
	write(t, io[1], spooled)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[stdout]
	if _, err := st.take(int(st.fifo.Fd()), pipeSize); err != nil {
		t.Fatal(err)
	}
	return s, io
}

func journalBytes(t *testing.T, cfg Config) []byte {
	t.Helper()
	raw, err := os.ReadFile(journalPath(cfg.Dir))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// intent is the journal as it is after a batch was announced and before it was
// committed: the older slot, in which the batch is, alone.
func intent(t *testing.T, cfg Config) []byte {
	t.Helper()
	raw := journalBytes(t, cfg)
	for at := 0; at < 2*slotSize; at += slotSize {
		if s, err := decodeState(raw[at : at+slotSize]); err == nil && s.batch.active {
			clear(raw[slotSize-at : 2*slotSize-at])
			return raw
		}
	}
	t.Fatal("no batch in the journal")
	return nil
}

// The first batch leaves an open line, and the second, which is interrupted,
// another.
const (
	firstText   = "first\nha"
	spooledText = "lf\nthird\nopen"
)

func TestCrashAfterTake(t *testing.T) {
	cfg := testConfig(t)
	s, _ := stopped(t, cfg, firstText, spooledText)
	s.Close()
	expect(t, cfg, firstText+spooledText, cfg.LogPath)
}

// TestCrashInBatch dies with the batch announced and some of it written.
func TestCrashInBatch(t *testing.T) {
	for name, part := range map[string]float64{"nothing written": 0, "half written": 0.5, "all written": 1} {
		for _, rotate := range []string{"", "renamed", "renamed and reopened", "removed"} {
			t.Run(strings.TrimSpace(name+" "+rotate), func(t *testing.T) {
				cfg := testConfig(t)
				s, _ := stopped(t, cfg, firstText, spooledText)
				before, err := os.Stat(cfg.LogPath)
				if err != nil {
					t.Fatal(err)
				}
				s.mu.Lock()
				err = s.writeBatchLocked(s.streams[stdout], false)
				s.mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
				s.Close()
				after, err := os.ReadFile(cfg.LogPath)
				if err != nil {
					t.Fatal(err)
				}
				written := before.Size() + int64(part*float64(int64(len(after))-before.Size()))
				if err := os.Truncate(cfg.LogPath, written); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(journalPath(cfg.Dir), intent(t, cfg), 0o600); err != nil {
					t.Fatal(err)
				}
				rotated := cfg.LogPath + ".20260102-030405"
				if strings.HasPrefix(rotate, "renamed") {
					if err := os.Rename(cfg.LogPath, rotated); err != nil {
						t.Fatal(err)
					}
				}
				defer func() { // the same bytes at the same place, timestamps too
					path := rotated
					if rotate == "" {
						path = cfg.LogPath
					}
					if again, err := os.ReadFile(path); rotate != "removed" && !bytes.HasPrefix(again, after) {
						t.Errorf("log is %q, %v, but was %q", again, err, after)
					}
				}()
				switch rotate {
				case "":
					expect(t, cfg, firstText+spooledText, cfg.LogPath)
				case "renamed":
					expect(t, cfg, firstText+spooledText, rotated, cfg.LogPath)
				case "renamed and reopened":
					if err := os.WriteFile(cfg.LogPath, nil, 0o640); err != nil {
						t.Fatal(err)
					}
					expect(t, cfg, firstText+spooledText, rotated, cfg.LogPath)
				case "removed":
					if err := os.Remove(cfg.LogPath); err != nil {
						t.Fatal(err)
					}
					expect(t, cfg, "ha"+spooledText, cfg.LogPath)
				}
			})
		}
	}
}

// TestCrashInCut dies with the spool cut and the journal not told.
func TestCrashInCut(t *testing.T) {
	cfg := testConfig(t)
	first := strings.Repeat("a line\n", cutSize)
	s := mustCreate(t, cfg)
	io := container(t, s)
	s.halt()
	write(t, io[1], first)
	s.mu.Lock()
	st := s.streams[stdout]
	if _, err := st.take(int(st.fifo.Fd()), pipeSize); err != nil {
		t.Fatal(err)
	}
	for s.journal.streams[stdout].done < st.size {
		if err := s.writeBatchLocked(st, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.spool.Truncate(0); err != nil {
		t.Fatal(err)
	}
	s.mu.Unlock()
	s.Close()
	write(t, io[1], "after\n")
	s = mustOpen(t, cfg)
	write(t, io[1], "and on\n")
	finish(t, s)
	if got, want := printed(t, cfg.LogPath, "stdout"), first+"after\nand on\n"; got != want {
		t.Errorf("%d bytes, want %d; the last are %q", len(got), len(want), got[max(0, len(got)-30):])
	}
}

// expect opens the streams again, finishes them, and compares what these logs,
// in order, have of stdout.
func expect(t *testing.T, cfg Config, want string, paths ...string) {
	t.Helper()
	finish(t, mustOpen(t, cfg))
	var got string
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			got += printed(t, path, "stdout")
		}
	}
	if got != want {
		t.Errorf("logs have %q, want %q", got, want)
	}
}

// TestJournalThatIsCorrupt loses the journal to something worse than SIGKILL: lines
// may come twice, but all come, and the streams work on.
func TestJournalThatIsCorrupt(t *testing.T) {
	cfg := testConfig(t)
	s, io := stopped(t, cfg, "first\n", "second\n")
	s.Close()
	if err := os.WriteFile(journalPath(cfg.Dir), make([]byte, 2*slotSize), 0o600); err != nil {
		t.Fatal(err)
	}
	reported := make(chan error, 10)
	cfg.OnError = func(err error) { reported <- err }
	s = mustOpen(t, cfg)
	write(t, io[1], "third\n")
	finish(t, s)
	if got := printed(t, cfg.LogPath, "stdout"); !strings.HasSuffix(got, "first\nsecond\nthird\n") {
		t.Errorf("log has %q", got)
	}
	if len(reported) != 1 {
		t.Errorf("%d reports, want 1", len(reported))
	}
}
