package logs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of one MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes into a file until its disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestStreamsOnAFullDisk prints more than the disk of the log, or that of the streams'
// directory, holds: nothing is lost once there is room, over a restart and a
// rotation too, and the failure is told once.
func TestStreamsOnAFullDisk(t *testing.T) {
	for _, tc := range []struct {
		name           string
		logIsSmall     bool
		restart        bool
		rotateWhenFull bool
	}{
		{name: "log", logIsSmall: true},
		{name: "log, restarted", logIsSmall: true, restart: true},
		{name: "log, rotated", logIsSmall: true, rotateWhenFull: true},
		{name: "streams"},
		{name: "streams, restarted", restart: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			small := smallDisk(t)
			cfg := testConfig(t)
			if tc.logIsSmall {
				cfg.LogPath = filepath.Join(small, "0.log")
			} else {
				cfg.Dir = small
			}
			reports := make(chan error, 100)
			cfg.OnError = func(err error) { reports <- err }
			s := mustCreate(t, cfg)
			io := container(t, s)
			ballast := filepath.Join(small, "ballast")
			fill(t, ballast)
			if info, err := os.Stat(ballast); err != nil {
				t.Fatal(err)
			} else if err := os.Truncate(ballast, info.Size()-8192); err != nil {
				t.Fatal(err) // with room for a part, a batch is torn
			}

			out := strings.Repeat("a line of some length for a full disk\n", 2000)
			write(t, io[1], out)
			if err := <-reports; !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("reported %v, want ENOSPC", err)
			}
			write(t, io[2], out)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if tc.restart {
				if err := s.Finish(ctx); err == nil {
					t.Fatal("finished with a full disk")
				}
				s.Close()
				s = mustOpen(t, cfg)
				<-reports
			}
			logs := []string{cfg.LogPath}
			if tc.rotateWhenFull {
				logs = []string{cfg.LogPath + ".1", cfg.LogPath}
				if err := os.Rename(logs[1], logs[0]); err != nil {
					t.Fatal(err)
				}
				if err := s.Reopen(); err != nil {
					t.Fatal(err)
				}
			}
			if len(reports) != 0 {
				t.Errorf("reported again: %v", <-reports)
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			finish(t, s)
			for _, stream := range streamNames {
				var got string
				for _, path := range logs {
					got += printed(t, path, stream)
				}
				if got != out {
					t.Errorf("%s has %d bytes, want %d", stream, len(got), len(out))
				}
			}
		})
	}
}

// TestStreamsWithoutTheDirectoryOfTheLog removes it while the daemon is away.
func TestStreamsWithoutTheDirectoryOfTheLog(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	io := container(t, s)
	s.Close()
	dir := filepath.Dir(cfg.LogPath)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // it cannot be made again
		t.Fatal(err)
	}
	reports := make(chan error, 100)
	cfg.OnError = func(err error) { reports <- err }
	s = mustOpen(t, cfg)
	write(t, io[1], "kept\n")
	<-reports
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the line", logHas(cfg.LogPath, "kept"))
	finish(t, s)
	if got := printed(t, cfg.LogPath, "stdout"); got != "kept\n" {
		t.Errorf("log has %q", got)
	}
}
