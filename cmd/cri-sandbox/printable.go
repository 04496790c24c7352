package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Names of processes, stacks, events and the texts of errors are chosen by guests,
// images, who writes pods, and sandboxes that somebody may have broken out into.
// On a terminal they could set its title or its keys, move over other lines, or
// read backwards. So all that the program prints, and the daemon logs, goes through
// a printer, and what is a part of a line through printable, too.

// printable makes a text safe to stand in a line. What is printable by Go's rule,
// letters and marks of all scripts among it, stays; controls of both sets, what
// changes the direction or cannot be seen, and spaces but the common one become
// \u, \n and \t as in JSON, so that a JSON document with one means the same; bytes
// that are not UTF-8 become \x. A backslash stays as it is: this is to be read, not decoded.
func printable(s string) string { return escape(s, "") }

// printer writes texts of several lines, which stay lines. A letter must not be
// divided between two writes; it would be taken for bytes.
type printer struct{ to io.Writer }

// Write implements io.Writer.
func (p printer) Write(b []byte) (int, error) {
	if _, err := io.WriteString(p.to, escape(string(b), "\n\t")); err != nil {
		return 0, err
	}
	return len(b), nil
}

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
