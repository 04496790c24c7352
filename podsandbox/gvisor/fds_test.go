package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// namedFile makes a file that holds its own name.
func namedFile(t *testing.T, dir, name string) *os.File {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A caller that gives up closes its files, and their numbers are soon others'. What
// reaches the sandbox then is what the caller gave.
func TestStartExecSendsFilesThatItsCallerHasClosed(t *testing.T) {
	answerList, executed := make(chan struct{}), make(chan struct{})
	b := newBrokenOut(t, newTestEngine(t), func(method string, _ json.RawMessage, conn net.Conn) {
		switch method {
		case methodProcesses:
			<-answerList
			_, _ = conn.Write([]byte(`{"success":true,"result":[]}`))
		case methodExec:
			_, _ = conn.Write([]byte(`{"success":true,"result":7}`))
			close(executed)
		default:
			_, _ = conn.Write([]byte(`{"success":true,"result":0}`))
		}
	})
	answer := sync.OnceFunc(func() { close(answerList) })
	t.Cleanup(answer)
	dir := t.TempDir()
	var stdio [3]*os.File
	for i, name := range []string{"in", "out", "err"} {
		stdio[i] = namedFile(t, dir, name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	listed := func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.asked[methodProcesses] }
	go func() {
		for !listed() {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	_, err := b.StartExec(ctx, "c", engine.Exec{Process: &specs.Process{Args: []string{"true"}}, Stdio: stdio})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want Canceled", err)
	}
	closeAll(stdio[:])
	for range 20 { // as other requests of the daemon would
		namedFile(t, dir, "secret")
	}
	answer()
	select {
	case <-executed:
	case <-time.After(10 * time.Second):
		t.Fatal("no command has reached the sandbox")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var got []string
	for _, f := range b.sent[methodExec] {
		text := make([]byte, 10)
		n, _ := f.Read(text)
		got = append(got, string(text[:n]))
	}
	if want := []string{"in", "out", "err"}; !slices.Equal(got, want) {
		t.Errorf("the sandbox got %q, want %q", got, want)
	}
}

// A file that is closed at the worst moment is still what its number means.
func TestControlKeepsTheFileOpen(t *testing.T) {
	dir := t.TempDir()
	f := namedFile(t, dir, "own")
	var link string
	err := control(f, func(fd int) error {
		if err := f.Close(); err != nil {
			return err
		}
		for range 20 {
			namedFile(t, dir, "other")
		}
		var err error
		link, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		return err
	})
	if err != nil || !strings.HasSuffix(link, "/own") {
		t.Errorf("its number means %s, %v", link, err)
	}
	if _, err := copyFDs([]*os.File{f}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("copy of a closed file: %v, want ErrClosed", err)
	}
}

// File.Fd gives a number away, which is good until somebody closes the file.
func TestControlAloneUsesNumbers(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Fd" {
				if _, is := sel.X.(*ast.Ident); is {
					t.Errorf("%s calls Fd", name)
				}
			}
			return true
		})
	}
}

// What is lent to a child, as the ring to each gofer, may be closed at any moment: the
// child is born with what was lent.
func TestForkDonatesWhatIsClosedMeanwhile(t *testing.T) {
	e := newTestEngine(t)
	dir := t.TempDir()
	lent := namedFile(t, dir, "lent")
	// Two cgroups: one tells that the child is about to be born, one lets it.
	begun, goOn := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	for _, cgroup := range []string{begun, goOn} {
		if err := errors.Join(os.Mkdir(cgroup, 0o700), unix.Mkfifo(filepath.Join(cgroup, "tasks"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	tid, err := os.OpenFile(filepath.Join(begun, "tasks"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tid.Close()
	d := newDonation(e.null)
	d.lend("pin-ring-fd", lent)
	b := spawnConfig{program: brokenProgram(t, idleProgram), argv0: "idle", id: "x", cgroups: []string{begun, goOn}}
	type result struct {
		p   *process
		err error
	}
	forked := make(chan result, 1)
	go func() { p, err := b.fork(d); forked <- result{p, err} }()
	if _, err := tid.Read(make([]byte, 20)); err != nil {
		t.Fatal(err)
	}
	lent.Close()
	for range 20 {
		namedFile(t, dir, "other")
	}
	open, err := os.OpenFile(filepath.Join(goOn, "tasks"), os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	r := <-forked
	if r.err != nil {
		t.Fatal(r.err)
	}
	defer func() { _ = r.p.signal(unix.SIGKILL); <-r.p.done }()
	if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/3", r.p.pid)); err != nil || !strings.HasSuffix(link, "/lent") {
		t.Errorf("it was born with %s, %v", link, err)
	}
}
