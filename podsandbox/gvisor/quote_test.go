package gvisor

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestQuoted(t *testing.T) {
	for text, want := range map[string]string{
		"container c not found": "container c not found",
		"größe 5 µs":            "größe 5 µs",
		"a\nb\r\x1b[2Jc\x00":    `a\nb\u000d\u001b[2Jc\u0000`,
		"\u202egnp.exe\u2028":   `\u202egnp.exe\u2028`,
		"\xff\xfe":              `\xff\xfe`,
	} {
		if got := quoted(text, maxQuote); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	long := "failed to load /" + strings.Repeat("x/", 4000) + ": no such file or directory"
	if got := quoted(long, maxQuote); !strings.HasPrefix(got, "failed to load /x/") || !strings.HasSuffix(got, ": no such file or directory") {
		t.Errorf("a long text becomes %q", got)
	}
}

func TestASCIIJSON(t *testing.T) {
	for value, want := range map[string]string{
		"{\"a\" : \r\n [1,\"x\"]}": `{"a":[1,"x"]}`, "\"\u009b2J\x7f😀\"": `"\u009b2J\u007f\ud83d\ude00"`, "{": "",
	} {
		if got := string(asciiJSON([]byte(value))); got != want {
			t.Errorf("%q becomes %q, want %q", value, got, want)
		}
	}
}

func FuzzQuoted(f *testing.F) {
	f.Add("text", 100)
	f.Add(strings.Repeat("\x00ü\xff", 1000), 50)
	f.Fuzz(func(t *testing.T, text string, most int) {
		most = 16 + most&0xfff
		got := quoted(text, most)
		if len(got) > most || !utf8.ValidString(got) {
			t.Errorf("%d bytes of at most %d: %q", len(got), most, got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q is left in %q", r, got)
			}
		}
	})
}
