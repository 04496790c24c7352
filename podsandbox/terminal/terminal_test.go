package terminal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func open(t *testing.T) (*Terminal, *os.File) {
	t.Helper()
	term, slave, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close(); term.Close() })
	return term, slave
}

// set changes the settings of a terminal, as programs on it do.
func set(t *testing.T, slave *os.File, change func(*unix.Termios)) {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	change(settings)
	if err := unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, settings); err != nil {
		t.Fatal(err)
	}
}

func TestInputWriterKeysBecomeSignals(t *testing.T) {
	all := []unix.Signal{unix.SIGINT, unix.SIGTSTP, unix.SIGQUIT}
	for name, c := range map[string]struct {
		change func(*unix.Termios)
		typed  string
		want   []unix.Signal
	}{
		"keys":          {func(*unix.Termios) {}, "\x03\x1a\x1c", all},
		"among words":   {func(*unix.Termios) {}, "a\x03b\x1ac\x1cd", all},
		"words":         {func(*unix.Termios) {}, "hello\n", nil},
		"raw":           {func(m *unix.Termios) { m.Lflag &^= unix.ISIG | unix.ICANON }, "\x03\x1a\x1c", nil},
		"other key":     {func(m *unix.Termios) { m.Cc[unix.VINTR] = 'x' }, "\x03xy", []unix.Signal{unix.SIGINT}},
		"key disabled":  {func(m *unix.Termios) { m.Cc[unix.VINTR] = 0 }, "\x03\x00\x1c", []unix.Signal{unix.SIGQUIT}},
		"quoted":        {func(*unix.Termios) {}, "\x16\x03\x03", []unix.Signal{unix.SIGINT}},
		"quote, no use": {func(m *unix.Termios) { m.Lflag &^= unix.ICANON }, "\x16\x03", []unix.Signal{unix.SIGINT}},
	} {
		t.Run(name, func(t *testing.T) {
			term, slave := open(t)
			set(t, slave, c.change)
			for _, whole := range []bool{true, false} { // in one message, or in many
				var got []unix.Signal
				input := term.InputWriter(func(sig unix.Signal) { got = append(got, sig) })
				chunks := []string{c.typed}
				if !whole {
					chunks = strings.Split(c.typed, "")
				}
				for _, s := range chunks {
					if n, err := input.Write([]byte(s)); err != nil || n != len(s) {
						t.Fatal(n, err)
					}
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("whole %v: signals %v, want %v", whole, got, c.want)
				}
			}
		})
	}
}

// A signal comes after the terminal has got all that was typed before it.
func TestInputWriterSignalsComeInOrder(t *testing.T) {
	term, slave := open(t)
	set(t, slave, func(m *unix.Termios) { m.Lflag &^= unix.ICANON | unix.ECHO; m.Lflag |= unix.NOFLSH })
	var seen string
	input := term.InputWriter(func(unix.Signal) {
		buf := make([]byte, 100)
		n, _ := slave.Read(buf)
		seen = string(buf[:n])
	})
	if _, err := input.Write([]byte("before\x03after")); err != nil {
		t.Fatal(err)
	}
	if seen != "before" {
		t.Errorf("at the signal the terminal had %q", seen)
	}
}

// What a program prints on getting a signal is not thrown away with what was
// printed before.
func TestInputWriterLosesNothingAfterASignal(t *testing.T) {
	term, slave := open(t)
	input := term.InputWriter(func(unix.Signal) { slave.WriteString("got it\n") })
	var printed []byte
	buf := make([]byte, 4096)
	const times = 3000
	for i := range times {
		typed := "\x03"
		if i%2 == 1 {
			typed = "typed ahead\n\x03"
		}
		if _, err := input.Write([]byte(typed)); err != nil {
			t.Fatal(err)
		}
		term.SetReadDeadline(time.Now().Add(10 * time.Second))
		for printed = printed[:0]; !bytes.Contains(printed, []byte("got it")); {
			n, err := term.Read(buf)
			if err != nil {
				t.Fatalf("try %d: %v after %q", i, err, printed)
			}
			printed = append(printed, buf[:n]...)
		}
	}
}

func TestResize(t *testing.T) {
	term, slave := open(t)
	for _, c := range []struct {
		size    Size
		changed bool
	}{
		{Size{Rows: 24, Columns: 80}, true},
		{Size{Rows: 24, Columns: 80}, false},
		{Size{}, false},
		{Size{Rows: 30}, false},
	} {
		if changed, err := term.Resize(c.size); err != nil || changed != c.changed {
			t.Errorf("%v: %v, %v", c.size, changed, err)
		}
	}
	got, err := unix.IoctlGetWinsize(int(slave.Fd()), unix.TIOCGWINSZ)
	if err != nil || got.Row != 24 || got.Col != 80 {
		t.Errorf("size %+v, %v", got, err)
	}
}

func relayed(t *testing.T, term *Terminal) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := term.Relay(w); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// All that was printed is in the pipe when Finish returns, also where the pipe is
// full for a while.
func TestRelay(t *testing.T) {
	term, slave := open(t)
	set(t, slave, func(m *unix.Termios) { m.Oflag &^= unix.OPOST })
	pipe := relayed(t, term)
	want := bytes.Repeat([]byte("0123456789"), 50000) // more than pipe and terminal hold
	go func() {
		slave.Write(want)
		slave.Close()
	}()
	time.Sleep(50 * time.Millisecond) // the pipe fills up
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(pipe)
		got <- b
	}()
	if err := term.Finish(context.Background()); err != nil {
		t.Fatal(err)
	}
	if b := <-got; !bytes.Equal(b, want) {
		t.Errorf("%d bytes, want %d", len(b), len(want))
	}
}

func TestFinishIsBounded(t *testing.T) {
	term, slave := open(t)
	pipe := relayed(t, term)
	if _, err := slave.WriteString("words"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(pipe, b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := term.Finish(ctx); err != nil { // somebody still holds the slave side
		t.Fatal(err)
	}
	if _, err := slave.WriteString("x"); !errors.Is(err, unix.EIO) {
		t.Errorf("write to what is hung up: %v", err)
	}
}

// What nobody has moved yet waits in the terminal for the next daemon.
func TestAdopt(t *testing.T) {
	term, slave := open(t)
	dup, err := unix.FcntlInt(term.Master().Fd(), unix.F_DUPFD_CLOEXEC, 3) // what the sandbox holds
	if err != nil {
		t.Fatal(err)
	}
	pipe := relayed(t, term)
	slave.WriteString("one\n")
	b := make([]byte, 5)
	if _, err := io.ReadFull(pipe, b); err != nil {
		t.Fatal(err)
	}
	term.Close()
	slave.WriteString("two\n")
	next, err := Adopt(os.NewFile(uintptr(dup), "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if _, err := next.Read(b); err != nil || string(b) != "two\r\n" {
		t.Errorf("read %q, %v", b, err)
	}
}

// What a sandbox held may be anything.
func TestAdoptWhatIsNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	_, slave := open(t)
	for _, f := range []*os.File{r, null, slave} {
		if _, err := Adopt(f); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, want InvalidArgument", f.Name(), err)
		}
	}
}

// Whoever holds the master side, too, can make it block.
func TestCloseOfATerminalThatIsMadeToBlock(t *testing.T) {
	term, slave, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := term.conn.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) }); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := term.Relay(w); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // until the relay has begun to wait
	closed := make(chan error, 1)
	go func() { closed <- term.Close() }()
	select {
	case err := <-closed:
		if !errdefs.IsUnavailable(err) {
			t.Errorf("%v, want Unavailable", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it hangs")
	}
	slave.Close() // as with the end of the sandbox
	<-term.relay.done
}
