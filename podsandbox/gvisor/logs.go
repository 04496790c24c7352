package gvisor

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/printable"
)

// The Sentry and its gofers say fatal errors and Go panics on their stderr. It is a
// memory file of one size for each, and not a file in Config.Dir: that lies in memory
// of the node, which whoever holds a descriptor could fill. What does not fit is lost,
// so no gofer has the Sentry's: each container that cannot be started would leave some
// words there. The Sentry keeps its own as long as it lives, and the next daemon takes it
// from there. When it has died, the daemon saves it in Config.Dir.

// panicLogName is that file in Config.Dir.
const panicLogName = "panic.log"

const (
	panicLogSize = 1 << 20   // bytes of memory, taken when they are written
	panicLogKept = 256 << 10 // of these, on disk
)

// panicLogFD is its number in the sandbox process: it is donated right behind the
// fd store.
const panicLogFD = 5

func newPanicLog() (*os.File, error) {
	return sizedMemoryFile(panicLogName, panicLogSize)
}

// adoptPanicLog takes it from a sandbox process. One of an older daemon has none, and
// one that stays empty takes its place.
func adoptPanicLog(p *process) (*os.File, error) {
	fd, err := p.takeFD(panicLogFD)
	if isLost(err) || isShortage(err) {
		return nil, err
	}
	if err != nil {
		return newPanicLog()
	}
	if !isPanicLog(fd) {
		go unix.Close(fd) // of a file that is not known, and may block
		return newPanicLog()
	}
	return os.NewFile(uintptr(fd), panicLogName), nil
}

// isPanicLog tells by the seals. Only memory has any: to read it never waits for a
// file system.
func isPanicLog(fd int) bool {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil && seals == sizeSeals
}

// readPanicLog returns what was written to a panic log. The offset of the open file is of no
// use: its lock is anybody's to hold.
func readPanicLog(log *os.File) []byte {
	var first [1]byte
	if _, err := log.ReadAt(first[:], 0); err != nil || first[0] == 0 {
		return nil // as of most
	}
	b := make([]byte, panicLogSize)
	n, _ := log.ReadAt(b, 0) // none once it is closed
	return bytes.TrimRight(b[:n], "\x00")
}

// maxPanicQuote is how much of a panic log is quoted, in bytes, for an error that has to say
// what to do.
const maxPanicQuote = 600

// quotePanicLog quotes what the Sentry said last. The log is on disk then, too.
func (s *sentry) quotePanicLog() string {
	path := filepath.Join(s.dir, panicLogName)
	b := readPanicLog(s.panicLog)
	if len(b) > 0 {
		_ = os.WriteFile(path, []byte(bothEnds(printable.Lines(string(fromCrash(b))), panicLogKept)), 0o600)
	} else {
		b = readSavedPanicLog(path)
	}
	words := quoted(essence(b, maxPanicQuote), maxPanicQuote)
	if words == "" {
		return "it left no message in " + path
	}
	return fmt.Sprintf("it said: %s (see %s)", words, path)
}

// fromCrash leaves out what is before a crash of a text that is not kept as a whole.
func fromCrash(b []byte) []byte {
	if at := crashAt(b); at > 0 && len(b) > panicLogKept {
		return b[at:]
	}
	return b
}

// readSavedPanicLog reads what was saved before: by this daemon, of a sandbox whose log is
// gone, or by the sandbox of an older daemon itself.
func readSavedPanicLog(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, panicLogKept))
	return b
}

// bootLogName is the file in Config.Dir with the Sentry's own log; see Options.Debug.
const bootLogName = "boot.log"

// openLog opens a log that may grow for good, which is why only Options.Debug asks
// for it.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}
