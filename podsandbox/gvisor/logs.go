package gvisor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// panicLogName is the file in Config.Dir with the stderr of the Sentry and of
// its gofers: fatal errors and Go panics.
const panicLogName = "panic.log"

// bootLogName is the file in Config.Dir with the Sentry's own log; see Options.Debug.
const bootLogName = "boot.log"

func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// logSize is where the panic log ends now; what is written later is behind it.
func (s *Sandbox) logSize() int64 {
	st, err := os.Stat(filepath.Join(s.cfg.Dir, panicLogName))
	if err != nil {
		return 0
	}
	return st.Size()
}

// lastWords quotes the first lines of the panic log behind an offset, for an
// error that has to say what to do.
func (s *Sandbox) lastWords(offset int64) string {
	const limit = 600
	path := filepath.Join(s.cfg.Dir, panicLogName)
	f, err := os.Open(path)
	if err != nil {
		return "it left no message"
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return "it left no message"
	}
	b, _ := io.ReadAll(io.LimitReader(f, limit))
	text := printable(strings.Join(strings.Fields(string(b)), " "), limit)
	if text == "" {
		return "it left no message in " + path
	}
	return fmt.Sprintf("it said: %s (see %s)", text, path)
}
