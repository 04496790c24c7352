package gvisor

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// An error says what failed inside. Its caller says in which call and of which object,
// and nobody knows the names of the control socket's methods.
func TestErrorsDoNotRepeatTheCall(t *testing.T) {
	for how, answer := range map[string]answerer{
		"refuses":  says(`{"success":false,"err":"the reason"}`),
		"hangs up": func(string, json.RawMessage, net.Conn) {},
		"garbage":  says("x"),
		"silent":   func(_ string, _ json.RawMessage, conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) },
	} {
		t.Run(how, func(t *testing.T) {
			b := newBrokenOut(t, newTestEngine(t), answer)
			c, _ := newContainer(t, shell(newRootfs(t), "true"))
			process := &specs.Process{Args: []string{"true"}}
			for verb, call := range map[string]func(context.Context) error{
				"start root": b.StartRoot,
				"start":      func(ctx context.Context) error { return b.Start(ctx, c.Container) },
				"wait for":   func(ctx context.Context) error { _, err := b.Wait(ctx, c.ID); return err },
				"exec": func(ctx context.Context) error {
					_, err := b.Exec(ctx, c.ID, engine.Exec{Process: process})
					return err
				},
				"exec in": func(ctx context.Context) error {
					_, err := b.StartExec(ctx, c.ID, engine.Exec{Process: process})
					return err
				},
				"signal":            func(ctx context.Context) error { return b.Signal(ctx, c.ID, int(unix.SIGTERM), false) },
				"signal foreground": func(ctx context.Context) error { return b.SignalForeground(ctx, c.ID, int(unix.SIGINT)) },
				"destroy":           func(ctx context.Context) error { return b.Destroy(ctx, c.ID) },
				"recover":           func(ctx context.Context) error { _, err := b.Recover(ctx, c.Container); return err },
				"read stats":        func(ctx context.Context) error { b.containers.get(c.ID); _, err := b.Stats(ctx); return err },
				"count":             func(ctx context.Context) error { _, err := b.Inodes(ctx, []string{c.ID}); return err },
				"update":            func(ctx context.Context) error { return b.Update(ctx, c.ID, &specs.LinuxResources{}) },
				"connect":           func(ctx context.Context) error { _, err := b.DialPort(ctx, 80); return err },
			} {
				if how == "hangs up" && verb == "wait for" {
					continue // asks again
				}
				ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
				err := call(ctx)
				cancel()
				if err == nil {
					t.Errorf("%s: no error", verb)
					continue
				}
				text := strings.ReplaceAll(err.Error(), b.cfg.Dir, "DIR")
				t.Logf("%s: %s", verb, text)
				for _, no := range []string{c.ID, b.cfg.ID, "containerManager", "Cgroups.", "Fs.", "call ", verb + " "} {
					if strings.Contains(text, no) {
						t.Errorf("%s: %q says %q", verb, text, no)
					}
				}
			}
		})
	}
}

func TestMethodWordsNameEveryMethod(t *testing.T) {
	b, err := os.ReadFile("calls.go")
	if err != nil {
		t.Fatal(err)
	}
	debug, err := os.ReadFile("debug.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b) + string(debug)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if !ok || !strings.HasPrefix(name, "method") || !strings.HasPrefix(value, `"`) {
			continue
		}
		n++
		if methodWords[strings.Trim(value, `"`)] == "" {
			t.Errorf("there are no words for %s", value)
		}
	}
	if n < 10 {
		t.Errorf("%d methods", n)
	}
}
