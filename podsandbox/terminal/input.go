package terminal

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// InputWriter writes to the input of a terminal what is typed there. It is for one
// goroutine; a terminal may have several.
type InputWriter struct {
	terminal *Terminal
	signal   func(unix.Signal)
	quoted   bool // the next character stands for itself
}

// InputWriter returns a writer of input. It calls signal for each character that the
// terminal, as its programs have set it, turns into a signal for the foreground
// process group, after the terminal has got the character.
func (t *Terminal) InputWriter(signal func(unix.Signal)) *InputWriter {
	return &InputWriter{terminal: t, signal: signal}
}

// Write implements io.Writer. It blocks while the terminal's input is full.
func (w *InputWriter) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		mode, err := w.terminal.mode()
		if err != nil {
			return written, err
		}
		end, sig := w.next(b[written:], mode)
		n, err := w.terminal.master.Write(b[written : written+end])
		written += n
		if err != nil {
			return written, fmt.Errorf("write to terminal: %w", err)
		}
		if sig != 0 {
			if mode.flushes {
				w.terminal.settle()
			}
			w.signal(sig)
		}
	}
	return written, nil
}

// next returns how many bytes there are up to and with the first that means a
// signal, and that signal; all of them and 0 where none does.
func (w *InputWriter) next(b []byte, m mode) (int, unix.Signal) {
	for i, c := range b {
		if w.quoted {
			w.quoted = false
			continue
		}
		if c == m.quote && c != disabled {
			w.quoted = true
			continue
		}
		if sig := m.signals[c]; sig != 0 && c != disabled {
			return i + 1, sig
		}
	}
	return len(b), 0
}

// disabled is the control character that no input has; termios(3),
// _POSIX_VDISABLE.
const disabled = 0

// mode is what the terminal does with special characters now.
type mode struct {
	signals map[byte]unix.Signal
	quote   byte
	flushes bool // such a character throws away what is on its way
}

// mode reads the settings of the slave side, which the master's descriptor shows.
func (t *Terminal) mode() (mode, error) {
	var termios *unix.Termios
	var err error
	cerr := t.conn.Control(func(fd uintptr) { termios, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
	if err == nil {
		err = cerr
	}
	if err != nil {
		return mode{}, fmt.Errorf("read terminal settings: %w", err)
	}
	return modeOf(termios), nil
}

func modeOf(t *unix.Termios) mode {
	m := mode{flushes: t.Lflag&unix.NOFLSH == 0}
	if t.Lflag&unix.ISIG != 0 {
		m.signals = map[byte]unix.Signal{
			t.Cc[unix.VINTR]: unix.SIGINT, t.Cc[unix.VQUIT]: unix.SIGQUIT, t.Cc[unix.VSUSP]: unix.SIGTSTP,
		}
	}
	// Only a terminal that edits lines knows the character that quotes the next.
	if t.Lflag&unix.ICANON != 0 && t.Lflag&unix.IEXTEN != 0 {
		m.quote = t.Cc[unix.VLNEXT]
	}
	return m
}

// settleTries are the milliseconds that settle waits at most.
const settleTries = 200

// settle waits until the line discipline, which works on a thread of the kernel,
// has taken a character that means a signal. It then throws away all input, and
// all output that was not read yet. Were the signal sent before, that could be
// what a program prints on getting it.
//
// The slave side says it: to look for input there waits for that thread when there
// is none, and while there is some, the character was not taken.
func (t *Terminal) settle() {
	var slave *os.File
	err := t.conn.Control(func(fd uintptr) { slave, _ = openPeer(int(fd)) })
	if err != nil || slave == nil {
		return // closed, and nobody is there to be signalled
	}
	defer slave.Close()
	fd := int(slave.Fd())
	for range settleTries {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n == 0 && err == nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
