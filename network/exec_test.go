package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
)

// patience is how long a test waits for what must come; it asserts nothing.
const patience = 30 * time.Second

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

// program copies failcni under a name of the test's own, so that its processes
// can be told from those of other tests.
func program(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(failcniDir, "failcni"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "failcni")
	if err := os.WriteFile(path, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range processesOf(t, path) {
			t.Errorf("plugin process %s is left", pid)
			kill(t, pid)
		}
	})
	return path
}

func runAction(ctx context.Context, path, action, log string) ([]byte, error) {
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"n","type":"failcni","log":%q,"actions":{"ADD":%q}}`, log, action)
	return (&runner{}).ExecPlugin(ctx, path, []byte(conf), append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=x"))
}

func TestExecPluginSaysWhatWentWrong(t *testing.T) {
	path := program(t)
	for action, says := range map[string][]string{
		"fail:11": {"failcni", "ADD", "code 11", "told to fail"},
		"exit:3":  {"failcni", "ADD", "exit status 3", "printed nothing"},
		"stderr":  {"failcni", "exit status 1", "speaks on stderr"},
		"crash":   {"failcni", "signal: killed"},
		"garbage": {"failcni", "no CNI result", "this is not JSON"},
		"flood":   {"failcni", "printed more than"},
		"unknown": {"failcni", "unknown"},
	} {
		t.Run(action, func(t *testing.T) {
			out, err := runAction(t.Context(), path, action, "")
			if err == nil {
				t.Fatalf("no error; it printed %q", out)
			}
			for _, s := range says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			if len(err.Error()) > 2*maxPluginStderr {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
	t.Run("null is no result", func(t *testing.T) {
		if isObject([]byte("null")) || isObject([]byte("[]")) || !isObject([]byte("{}")) {
			t.Error("only an object is a result")
		}
	})
}

func TestExecPluginKeepsTheCode(t *testing.T) {
	_, err := runAction(t.Context(), program(t), "fail:11", "")
	var said *types.Error
	if !errors.As(err, &said) || said.Code != types.ErrTryAgainLater {
		t.Errorf("got %v", err)
	}
	if !errdefs.IsUnavailable(classify(err, errdefs.ErrInternal)) {
		t.Errorf("%v is not unavailable", err)
	}
	_, err = runAction(t.Context(), program(t), "fail", "")
	if !errdefs.IsInternal(classify(err, errdefs.ErrInternal)) {
		t.Errorf("%v is not internal", err)
	}
}

// A plugin that hangs has a child that hangs and holds its output.
func TestExecPluginKillsTheTree(t *testing.T) {
	path := program(t)
	log := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := runAction(ctx, path, "hang", log)
		ended <- err
	}()
	eventually(t, "two processes", func() bool { return len(processesOf(t, path)) == 2 })
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "killed") {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Error("ExecPlugin hangs with its plugin")
	}
	eventually(t, "no process", func() bool { return len(processesOf(t, path)) == 0 })
}

func TestExecPluginDoesNotWaitForAChildThatHoldsTheOutput(t *testing.T) {
	path := program(t)
	out, err := runAction(t.Context(), path, "linger", "")
	if err != nil || !isObject(out) {
		t.Errorf("got %q, %v", out, err)
	}
	for _, pid := range processesOf(t, path) {
		kill(t, pid)
	}
	eventually(t, "no process", func() bool { return len(processesOf(t, path)) == 0 })
}

func TestExecPluginTriesAgainWhileTheProgramIsWritten(t *testing.T) {
	path := program(t)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*busyDelay, func() { f.Close() })
	if _, err := runAction(t.Context(), path, "ok", ""); err != nil {
		t.Error(err)
	}
}

func TestFindInPath(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	for path, mode := range map[string]os.FileMode{
		first + "/notes": 0o644, second + "/notes": 0o755,
		first + "/both": 0o755, second + "/both": 0o755,
	} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	dirs := []string{first, second}
	for name, want := range map[string]string{"notes": second + "/notes", "both": first + "/both"} {
		if got, err := (&runner{}).FindInPath(name, dirs); err != nil || got != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if _, err := (&runner{}).FindInPath("none", dirs); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "none") || !strings.Contains(err.Error(), second) {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"", "../both", "a/b", "/bin/sh"} {
		if _, err := (&runner{}).FindInPath(name, dirs); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}
