package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var s series
	if got := s.quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for _, ms := range []int{50, 10, 40, 20, 30} {
		s.add(time.Duration(ms) * time.Millisecond)
	}
	for q, want := range map[float64]float64{0: 10, 0.2: 10, 0.5: 30, 0.8: 40, 0.9: 50, 1: 50} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	if s.samples[0] != 50*time.Millisecond {
		t.Error("the samples were sorted in place")
	}
}

func TestParseStat(t *testing.T) {
	fields := "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000"
	p, ok := parseStat([]byte("42 (a) b (c) " + fields))
	if !ok || p != (process{pid: 42, parent: 7, start: "123456"}) {
		t.Errorf("got %+v, %v", p, ok)
	}
	for _, bad := range []string{"", "42", "42 (a", ") 42 (", "x (a) " + fields, "42 (a) S 7"} {
		if p, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q parses as %+v", bad, p)
		}
	}
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := parseStat(b); !ok || p.pid != os.Getpid() || p.parent != os.Getppid() {
		t.Errorf("of this process: %+v, %v", p, ok)
	}
}

func TestParsePss(t *testing.T) {
	rollup := "5581 ---p [rollup]\nRss:    8192 kB\nPss:    2048 kB\nPss_Dirty: 9 kB\n"
	if got := parsePss([]byte(rollup)); got != 2 {
		t.Errorf("got %v MiB", got)
	}
	if got := parsePss(nil); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestFamilies(t *testing.T) {
	// 1 ── 10 bench ── 11 daemon ── 20 sandbox ── 21 gofer
	//   └─ 30 stranger             └ 12 bench's own child
	now := map[int]process{
		1: {1, 0, "1"}, 10: {10, 1, "1"}, 11: {11, 10, "1"}, 12: {12, 10, "9"},
		20: {20, 11, "9"}, 21: {21, 20, "9"}, 30: {30, 1, "9"},
	}
	matched := map[int]bool{12: true, 20: true, 21: false, 30: false}
	for pid, want := range map[int]bool{12: true, 20: false, 21: false, 30: false} {
		if got := descends(now, pid, 10, 11); got != want {
			t.Errorf("descends(%d) = %v", pid, got)
		}
	}
	if !descends(now, 20, 10, 0) {
		t.Error("without a daemon, a grandchild is the bench's own")
	}
	for pid, want := range map[int]bool{20: true, 21: true, 30: false} {
		if got := inherits(now, matched, pid); got != want {
			t.Errorf("inherits(%d) = %v", pid, got)
		}
	}
}

func TestReport(t *testing.T) {
	r := &report{Date: "2026-01-02", Machine: machine{Kernel: "6.0", CPU: "x", CPUs: 2, MemoryMiB: 1024, Cgroup: "v2"},
		Targets: []reportPart{{Name: "a"}, {Name: "b"}}}
	r.add(0, []result{{Name: "exec", Unit: "ms", N: 3, P50: 5, P90: 7.25}, single("rate", "/min", 461.3)})
	r.add(1, []result{{Name: "exec", Unit: "ms", N: 3, P50: 20, P90: 30}, single("only b", "MiB", 3)})
	var out bytes.Buffer
	r.print(&out)
	want := `
2026-01-02, Linux 6.0, 2 CPUs (x), 1024 MiB, cgroup v2

| measured | unit | a p50 | p90  | b p50 | p90  | ratio |
|---       |---   |---    |---   |---    |---   |---    |
| exec     | ms   | 5.00  | 7.25 | 20.0  | 30.0 | 0.25  |
| rate     | /min | 461   |      |       |      |       |
| only b   | MiB  |       |      | 3.00  |      |       |
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--local":                           "",
		"--image x --only rpcs,load":        "",
		"":                                  "--image is needed",
		"--local --only rpcs,nothing":       `no measurement is called "nothing"`,
		"--local --workers 1,x":             `"x" is not a number`,
		"--local --n 0":                     "at least 1",
		"--image x --daemon-pid /run/x.pid": "go together",
		"--local extra":                     `unknown argument "extra"`,
		"--image x --daemon-pid p --daemon-cmd cmd": "",
		"--local --vs-config x=1":                   "",
		"--local --vs-binary /x":                    "",
		"--image x --vs-binary /x":                  "go with --local",
		"--image x --vs-config x=1":                 "go with --local",
		"--local --vs unix:///x --vs-config x=1":    "without --vs",
		"--local --files 0":                         "at least 1",
		"--local --net-seconds 0":                   "at least 1",
		"--local --only net":                        "",
	} {
		_, err := parseFlags(strings.Fields(args))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	if !regexp.MustCompile(`bench\.test -test\.`).MatchString(describe(os.Getpid())) {
		t.Errorf("this process is %q", describe(os.Getpid()))
	}
}
