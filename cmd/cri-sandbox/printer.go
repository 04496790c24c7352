package main

import (
	"io"

	"github.com/cri-sandbox/cri-sandbox/internal/printable"
)

// printer writes texts of several lines, which stay lines. All that the program
// prints, and the daemon logs, goes through one; a part of a line is made printable
// by itself, too. A letter must not be divided between two writes; it would be taken
// for bytes.
type printer struct{ to io.Writer }

// Write implements io.Writer.
func (p printer) Write(b []byte) (int, error) {
	if _, err := io.WriteString(p.to, printable.Lines(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}
