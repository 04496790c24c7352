package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/leftovers"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/preflight"
)

// hostile sets a terminal's title, clears it, moves over what stands before, in
// both sets of controls, turns the direction, and makes lines and cells.
const hostile = "a\x1b]0;owned\x07\x1b[2J\rb\u009b31m\u202ec\xff\xc2\t\nd\x7f"

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

// TestPrinterKeepsTheMeaningOfJSON: it decodes to the same after the printer has been
// at it.
func TestPrinterKeepsTheMeaningOfJSON(t *testing.T) {
	text := "a\x1b\u009b\u202e\U000e0041\n"
	var out bytes.Buffer
	if err := json.NewEncoder(printer{&out}).Encode(text); err != nil {
		t.Fatal(err)
	}
	wantSafe(t, out.String())
	var got string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got != text {
		t.Errorf("%s is %q, %v; want %q", out.String(), got, err, text)
	}
}

// TestRunPrintsNothingRaw, neither as output nor as an error, whatever is said.
func TestRunPrintsNothingRaw(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.toml")
	writeFile(t, config, "root = \"/\\u009b\\u202e\"\n")
	for name, args := range map[string][]string{
		"error":   {"config", "validate", "--config", "/none/" + hostile},
		"command": {hostile},
		"flag":    {"check", "--" + hostile},
		"output":  {"config", "dump", "--config", config},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			run(args, &out, &errs)
			if out.Len()+errs.Len() == 0 {
				t.Fatal("nothing was said")
			}
			wantSafe(t, out.String())
			wantSafe(t, errs.String())
			for line := range strings.Lines(errs.String()) {
				if !strings.HasPrefix(line, "cri-sandbox: ") && !strings.HasPrefix(line, "\t") {
					t.Errorf("a line that looks like the program's own: %q", line)
				}
			}
		})
	}
}

// TestSetUpLogLetsNothingRawThrough: in a value of one line, of several, as an error or
// an object.
func TestSetUpLogLetsNothingRawThrough(t *testing.T) {
	var log bytes.Buffer
	setUpLog(&log)
	defer setUpLog(io.Discard)
	klog.InfoS("Info", "value", hostile)
	klog.ErrorS(errors.New(hostile), "Error", "object", []string{hostile})
	klog.Infof("plain %s", hostile)
	klog.Flush()
	if strings.Count(log.String(), "owned") != 4 {
		t.Errorf("each once was wanted:\n%s", &log)
	}
	wantSafe(t, log.String())
}

// TestWriteProcessIsOneRow, whatever the process is called.
func TestWriteProcessIsOneRow(t *testing.T) {
	var out strings.Builder
	writeProcess(&out, hostile, gvisor.GuestProcess{TTY: hostile, STime: hostile, Time: hostile, Cmd: hostile})
	wantSafe(t, out.String())
	if strings.Count(out.String(), "\n") != 1 || strings.Count(out.String(), "\t") != 8 {
		t.Errorf("it is %q", out.String())
	}
}

// TestReportOfAFindingIsOneLine, whatever was found.
func TestReportOfAFindingIsOneLine(t *testing.T) {
	r := report{
		Findings: []preflight.Finding{{Check: "records", Level: preflight.Warning, Message: hostile, Mend: hostile}},
		Left:     []leftover{{Leftover: leftovers.Leftover{What: hostile}, Mend: hostile, Err: hostile}},
	}
	var out strings.Builder
	if err := r.write(&out, "text"); err != nil {
		t.Fatal(err)
	}
	wantSafe(t, out.String())
	if strings.Count(out.String(), "\n") != 4 {
		t.Errorf("it is %q", out.String())
	}
}
