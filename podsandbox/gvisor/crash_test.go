package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The error of a sandbox's death says what it panicked with and where, and nothing of
// other containers that could not be started.
func TestQuotePanicLogAfterAPanic(t *testing.T) {
	p := startPod(t)
	for range 3 {
		spec := shell(newRootfs(t), "true")
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: "/no/such/volume", Options: []string{"rbind"}})
		failing, _ := newContainer(t, spec)
		err := p.Create(testContext(t), failing.Container)
		if err == nil {
			err = p.Start(testContext(t), failing.Container)
		}
		if err == nil || !strings.Contains(err.Error(), "/no/such/volume") {
			t.Fatalf("start without a volume: %v", err)
		}
	}
	c, _ := newContainer(t, shell(newRootfs(t), "true"))
	if err := p.Create(testContext(t), c.Container); err != nil {
		t.Fatal(err)
	}
	g := p.containers.get(c.ID).gofer
	if err := g.await(testContext(t)); err != nil {
		t.Fatal(err)
	}
	// One connection too few is what the Sentry panics at.
	g.prepared.confs = append(g.prepared.confs, mountConf{Lower: lowerLisafs})
	g.mounts = append(g.mounts, specs.Mount{Destination: "/vol", Type: "bind", Source: "/x", Options: []string{"rbind"}})
	err := p.Start(testContext(t), c.Container)
	if err == nil {
		t.Fatal("it started")
	}
	for _, want := range []string{"panic: fdDispenser out of fds; in boot.(*fdDispenser).removeAsFD (vfs.go:", "boot.(*containerMounter).prepareMounts (vfs.go:", panicLogName} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	for _, other := range []string{"volume", "goroutine", "0x", "\n"} {
		if strings.Contains(err.Error(), other) {
			t.Errorf("%q in %v", other, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(p.cfg.Dir, panicLogName)); err != nil || !strings.Contains(string(b), "created by ") {
		t.Errorf("%s holds %.200q, %v", panicLogName, b, err)
	}
}

func TestEssence(t *testing.T) {
	const traceback = "\n\ngoroutine 54 gp=0x1 m=6 mp=0x2 [running]:\npanic({0x12?, 0x15?})\n\truntime/panic.go:879 +0x16f fp=0x58\n" +
		"runtime.goPanicIndex(0x5)\n\truntime/panic.go:115 +0x1\ngvisor.dev/gvisor/pkg/a.(*T[...]).f(...)\n\tgvisor.dev/gvisor@v0/pkg/a/a.go:7\n" +
		"main.main.func1({0x1, 0x2}, func(int))\n\tx/main.go:22 +0x1ad\ncreated by main.main in goroutine 1\n\tx/main.go:5\n\ngoroutine 1 [select]:\nb.b()\n\tb.go:1\n"
	const where = "; in a.(*T[...]).f (a.go:7), main.main.func1 (main.go:22)"
	many := strings.Repeat("another container failed\n", 2000)
	for text, want := range map[string]string{
		"":                                   "",
		"said to nobody\n":                   "said to nobody",
		many + "the end\n":                   "… the end",
		many + "panic: oops" + traceback:     "panic: oops" + where,
		"panic: a [recovered]\n\tpanic: b\n": "panic: a [recovered] panic: b",
		"fatal error: concurrent map writes" + traceback:                                                                      "fatal error: concurrent map writes" + where,
		"runtime: out of memory: cannot allocate\nfatal error: out of memory" + traceback:                                     "runtime: out of memory: cannot allocate fatal error: out of memory" + where,
		"unexpected fault address 0x5\nfatal error: fault\n[signal SIGBUS: bus error code=0x2 addr=0x5 pc=0x1]\n" + traceback: "unexpected fault address 0x5 fatal error: fault [signal SIGBUS: bus error code=0x2 addr=0x5 pc=0x1]" + where,
		"a panic: in the middle of a line\n":                                                                                  "a panic: in the middle of a line",
		"panic: " + strings.Repeat("x", 5000) + " at the end":                                                                 "panic: xxx…",
	} {
		got := essence([]byte(text), maxPanicQuote)
		begin, whole := strings.CutSuffix(want, "…")
		end, tail := strings.CutPrefix(want, "…")
		switch {
		case whole && strings.HasPrefix(got, begin), tail && strings.HasSuffix(got, end) && len(got) <= maxPanicQuote:
		case got != want:
			t.Errorf("%.60q becomes %q, want %q", text, got, want)
		}
	}
}

func FuzzEssence(f *testing.F) {
	f.Add([]byte("panic: oops\n\ngoroutine 1 [running]:\nmain.f(0x1)\n\tmain.go:7 +0x1\n"))
	f.Add([]byte("fatal error: \xff\n\n(((\n\t\n)))\n\tx\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := quoted(essence(text, maxPanicQuote), maxPanicQuote)
		if len(got) > maxPanicQuote {
			t.Errorf("%d bytes", len(got))
		}
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Errorf("%q is left in %q", r, got)
			}
		}
	})
}
