package gvisor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/cri-sandbox/cri-sandbox/internal/printable"
)

// maxQuote is how much of a text that a sandbox sent is told, in bytes: it goes to
// the log, to records and to answers of the CRI.
const maxQuote = 1 << 10

// quoted makes a text fit for those: at most so many bytes, with nothing in it that
// moves a cursor or begins a line.
func quoted(text string, most int) string {
	return bothEnds(printable.Line(bothEnds(text, most)), most)
}

// bothEnds leaves out the middle of a text that is too long: an error says at its
// beginning what was done, and at its end what went wrong.
func bothEnds(text string, most int) string {
	const gap = " … "
	if len(text) <= most {
		return text
	}
	tail := (most - len(gap)) / 2
	head := most - len(gap) - tail
	return strings.ToValidUTF8(text[:head], "") + gap + strings.ToValidUTF8(text[len(text)-tail:], "")
}

// asciiJSON writes a JSON value in one line, and what is not ASCII in it as escapes,
// which mean the same.
func asciiJSON(value []byte) []byte {
	var line bytes.Buffer
	if json.Compact(&line, value) != nil {
		return nil
	}
	var b []byte
	for _, r := range line.String() {
		if r < 0x7f {
			b = append(b, byte(r))
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			b = fmt.Appendf(b, `\u%04x`, unit)
		}
	}
	return b
}
