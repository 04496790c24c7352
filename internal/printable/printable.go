// Package printable makes texts that guests, images, authors of pods or sandboxes
// chose safe for whoever reads them: on a terminal they could set its title or its
// keys, move over other lines, or read backwards. It touches nothing.
//
// What is printable by Go's rule, letters and marks of all scripts among it, stays;
// controls of both sets, what changes the direction or cannot be seen, and spaces but
// the common one become \u, \n and \t as in JSON, so that a JSON document with one
// means the same; bytes that are not UTF-8 become \x. A backslash stays as it is: this
// is to be read, not decoded.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Line makes a text safe to stand in a line.
func Line(text string) string { return escape(text, "") }

// Lines makes a text of several lines safe. They stay lines, and tabs stay tabs.
func Lines(text string) string { return escape(text, "\n\t") }

// escape keeps what is printable, and the characters of keep.
func escape(s, keep string) string {
	safe := func(r rune) bool { return strconv.IsPrint(r) || strings.ContainsRune(keep, r) }
	var out strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&out, `\x%02x`, s[0])
		case safe(r):
			out.WriteString(s[:n])
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\t':
			out.WriteString(`\t`)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(&out, `\u%04x`, unit)
			}
		}
		s = s[n:]
	}
	return out.String()
}
