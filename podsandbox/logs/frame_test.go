package logs

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

var testHeader = newHeader("stdout", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC).UnixNano())

func TestHeader(t *testing.T) {
	if got, want := string(testHeader.full), "2026-01-02T03:04:05.000000006Z stdout F "; got != want {
		t.Errorf("full header %q, want %q", got, want)
	}
	if got, want := string(testHeader.partial), "2026-01-02T03:04:05.000000006Z stdout P "; got != want {
		t.Errorf("partial header %q, want %q", got, want)
	}
}

func TestAppendRecords(t *testing.T) {
	full := strings.Repeat("x", maxContent)
	for _, tc := range []struct {
		name, in string
		want     string // tag and content of each record
		rest     string
	}{
		{"nothing", "", "", ""},
		{"line", "a\n", "F a\n", ""},
		{"empty lines", "\n\n", "F \nF \n", ""},
		{"open line", "a\nbc", "F a\n", "bc"},
		{"carriage return and NUL stay", "a\r\n\x00\xff\n", "F a\r\nF \x00\xff\n", ""},
		{"exactly the maximum", full + "\n", "F " + full + "\n", ""},
		{"exactly the maximum, open", full, "", full},
		{"one more", full + "y\n", "P " + full + "\nF y\n", ""},
		{"one more, open", full + "y", "P " + full + "\n", "y"},
		{"twice and more", full + full + "y\nz", "P " + full + "\nP " + full + "\nF y\n", "z"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, used := appendRecords(nil, []byte(tc.in), testHeader, math.MaxInt)
			got := strings.ReplaceAll(string(out), "2026-01-02T03:04:05.000000006Z stdout ", "")
			if got != tc.want || tc.in[used:] != tc.rest {
				t.Errorf("got %.60q and rest %.60q, want %.60q and %.60q", got, tc.in[used:], tc.want, tc.rest)
			}
		})
	}
}

// FuzzAppendRecords checks that the contents of the records are the input, and
// that framing piece by piece, each piece stopped by a limit, is the same as
// framing its bytes again without one: recovery relies on that.
func FuzzAppendRecords(f *testing.F) {
	f.Add([]byte("a\nb"), uint16(1), uint16(10))
	f.Add(bytes.Repeat([]byte("0123456789"), 5000), uint16(3), uint16(100))
	f.Add(bytes.Repeat([]byte("0123456789"), 5000), uint16(50000), uint16(100))
	f.Add(bytes.Repeat([]byte("\n"), 200), uint16(50), uint16(64))
	f.Fuzz(func(t *testing.T, in []byte, split, limit16 uint16) {
		limit := int(limit16)
		in = bytes.Repeat(in, 1+int(split)%7)
		var got, line []byte
		for left := in; len(left) > 0; {
			n := min(len(left), 1+int(split)+len(in)/64)
			src := append(line[:len(line):len(line)], left[:n]...)
			out, used := appendRecords(nil, src, testHeader, 1+limit)
			rest := src[used:]
			stopped := len(out) > limit && (len(rest) > maxContent || bytes.IndexByte(rest, '\n') >= 0)
			if stopped {
				src = src[:used]
			}
			again, usedAgain := appendRecords(nil, src, testHeader, math.MaxInt)
			if !bytes.Equal(out, again) || used != usedAgain {
				t.Fatalf("framed %d bytes to %d, then %d to %d", used, len(out), usedAgain, len(again))
			}
			if used < len(line) && len(out) > 0 {
				t.Fatalf("a record ends inside the open line")
			}
			got = append(got, contents(t, out)...)
			if stopped {
				left = left[used-len(line):]
				line = nil
				continue
			}
			if line = src[used:]; len(line) > maxContent || bytes.IndexByte(line, '\n') >= 0 {
				t.Fatalf("open line of %d bytes", len(line))
			}
			left = left[n:]
		}
		if got = append(got, line...); !bytes.Equal(got, in) {
			t.Fatalf("%d bytes came out as %d others", len(in), len(got))
		}
	})
}

// contents parses the records of one stream as readers do.
func contents(t testing.TB, records []byte) (content []byte) {
	t.Helper()
	for _, r := range parseRecords(t, records) {
		content = append(content, r.content...)
	}
	return content
}

type record struct {
	time    string
	stream  string
	tag     string
	content []byte // with the newline, if tagged F
}

func parseRecords(t testing.TB, raw []byte) (records []record) {
	t.Helper()
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end < 0 {
			t.Fatalf("torn record at the end: %.80q", raw)
		}
		fields := bytes.SplitN(raw[:end+1], []byte(" "), 4)
		raw = raw[end+1:]
		if len(fields) != 4 {
			t.Fatalf("torn record: %.80q", bytes.Join(fields, []byte(" ")))
		}
		r := record{string(fields[0]), string(fields[1]), string(fields[2]), fields[3]}
		if _, err := time.Parse(time.RFC3339Nano, r.time); err != nil {
			t.Fatalf("torn record, time %q: %v", r.time, err)
		}
		switch {
		case r.stream != "stdout" && r.stream != "stderr":
			t.Fatalf("torn record, stream %q", r.stream)
		case r.tag == "P":
			r.content = r.content[:len(r.content)-1]
		case r.tag != "F":
			t.Fatalf("torn record, tag %q", r.tag)
		}
		records = append(records, r)
	}
	return records
}

func BenchmarkFrame(b *testing.B) {
	for _, size := range []int{20, 100, 1000} {
		b.Run(fmt.Sprintf("line=%dB", size), func(b *testing.B) {
			line := append(bytes.Repeat([]byte("x"), size-1), '\n')
			in := bytes.Repeat(line, maxBatchIn/size)
			out := make([]byte, 0, 8*maxBatchIn)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				out, _ = appendRecords(out[:0], in, testHeader, math.MaxInt)
			}
		})
	}
}
