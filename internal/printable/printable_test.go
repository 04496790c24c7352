package printable

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// hostile sets a terminal's title, clears it, moves over what stands before, in
// both sets of controls, turns the direction, and makes lines and cells.
const hostile = "a\x1b]0;owned\x07\x1b[2J\rb\u009b31m\u202ec\xff\xc2\t\nd\x7f"

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":           "",
		"sleep 4242": "sleep 4242",
		`C:\u001b`:   `C:\u001b`,
		"größer 日本語 नमस्ते ☃ 😀 é": "größer 日本語 नमस्ते ☃ 😀 é",
		"\x1b[31mred\x1b[0m":    `\u001b[31mred\u001b[0m`,
		"\u009b31m":             `\u009b31m`,
		"\x9b31m":               `\x9b31m`,
		"\x00\a\b\r\x7f":        `\u0000\u0007\u0008\u000d\u007f`,
		"two\nlines\tand a tab": `two\nlines\tand a tab`,
		"ab\u202ecd\u202c":      `ab\u202ecd\u202c`,
		"\u2066x\u2069\u200f":   `\u2066x\u2069\u200f`,
		"\u2028\u2029\u0085":    `\u2028\u2029\u0085`,
		"no\u00a0break\ufeff":   `no\u00a0break\ufeff`,
		"\U000e0041":            `\udb40\udc41`,
		"cut\xe6\x97":           `cut\xe6\x97`,
		"\ufffd":                "\ufffd",
	} {
		if got := Line(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add(hostile)
	f.Fuzz(func(t *testing.T, s string) {
		line := Line(s)
		wantSafe(t, line)
		if strings.ContainsAny(line, "\n\t") {
			t.Errorf("%q is not of one line", line)
		}
		if got := Line(line); got != line {
			t.Errorf("%q became %q", line, got)
		}
		lines := Lines(s)
		wantSafe(t, lines)
		if strings.Count(lines, "\n") != strings.Count(s, "\n") {
			t.Errorf("%q has other lines than %q", lines, s)
		}
	})
}

// wantSafe wants no character that a terminal acts on.
func wantSafe(t *testing.T, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%q is not UTF-8", s)
	}
	for _, r := range s {
		if !strconv.IsPrint(r) && r != '\n' && r != '\t' {
			t.Errorf("%q has %U", s, r)
		}
	}
}
