package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func follow(t *testing.T, s *Streams) *Follower {
	t.Helper()
	f, err := s.Follow()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// all returns what a follower gets until its end, by stream.
func all(t *testing.T, f *Follower) (out, errOut string) {
	t.Helper()
	var streams [2]bytes.Buffer
	for {
		c, err := f.Next(context.Background())
		if err == io.EOF {
			return streams[0].String(), streams[1].String()
		}
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		if c.Stderr {
			i = 1
		}
		streams[i].Write(c.Data)
	}
}

func TestFollowGetsWhatIsPrintedFromThenOn(t *testing.T) {
	for name, logged := range map[string]bool{"with a log": true, "without a log": false} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			if !logged {
				cfg.LogPath = ""
			}
			s := mustCreate(t, cfg)
			stdio := container(t, s)
			write(t, stdio[1], "before\n")
			eventually(t, "the pump", func() bool {
				n, err := unix.IoctlGetInt(int(stdio[1].Fd()), unix.TIOCINQ)
				return err == nil && n == 0
			})
			a, b := follow(t, s), follow(t, s)
			text := strings.Repeat("out of order? ", 100000)
			write(t, stdio[1], text)
			write(t, stdio[2], "err\n")
			finish(t, s)
			for i, f := range []*Follower{a, b} {
				if out, errOut := all(t, f); out != text || errOut != "err\n" {
					t.Errorf("follower %d got %d bytes, want %d, and %q", i, len(out), len(text), errOut)
				}
			}
			if logged && printed(t, cfg.LogPath, "stdout") != "before\n"+text {
				t.Error("the log differs")
			}
			if _, err := s.Follow(); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("follow what is over: %v", err)
			}
		})
	}
}

// Who does not read is dropped; the log and the others go on.
func TestFollowDropsWhoDoesNotRead(t *testing.T) {
	cfg := testConfig(t)
	s := mustCreate(t, cfg)
	stdio := container(t, s)
	lazy, gone := follow(t, s), follow(t, s)
	gone.Close()
	text := strings.Repeat(strings.Repeat("x", 99)+"\n", 2*maxBacklog/100)
	write(t, stdio[1], text)
	finish(t, s)
	if _, err := lazy.Next(context.Background()); !errors.Is(err, ErrLagged) {
		t.Errorf("the lazy one: %v, want ErrLagged", err)
	}
	<-lazy.Dropped()
	gone.mu.Lock()
	defer gone.mu.Unlock()
	if n := gone.size; n != 0 {
		t.Errorf("%d bytes wait for one that has left", n)
	}
	if got := printed(t, cfg.LogPath, "stdout"); got != text {
		t.Errorf("the log has %d bytes, want %d", len(got), len(text))
	}
}

func TestFollowHearsOfARestart(t *testing.T) {
	s := mustCreate(t, testConfig(t))
	f := follow(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("nothing printed: %v, want Canceled", err)
	}
	s.Close()
	if _, err := f.Next(context.Background()); !errdefs.IsUnavailable(err) {
		t.Errorf("streams closed: %v, want Unavailable", err)
	}
}
