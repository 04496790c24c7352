package gvisor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// The sandbox that has been taken over answers one method in a bad way, and all
// others well.

// methodUse is how a method comes to be called.
type methodUse struct {
	good   string // the result of an answer in order
	parked bool   // the call waits until its context ends, whatever breaks
	idle   bool   // the container has no process
	use    func(ctx context.Context, b *brokenOut, c engine.Container) error
}

var echo = engine.Exec{Process: &specs.Process{Args: []string{"true"}, Cwd: "/"}}

func startContainer(ctx context.Context, b *brokenOut, c engine.Container) error {
	return b.Start(ctx, c)
}

func startRoot(ctx context.Context, b *brokenOut, _ engine.Container) error { return b.StartRoot(ctx) }

func runExec(ctx context.Context, b *brokenOut, c engine.Container) error {
	_, err := b.Exec(ctx, c.ID, echo)
	return err
}

func profile(f func(*Debug, context.Context, *os.File) error) func(context.Context, *brokenOut, engine.Container) error {
	return func(ctx context.Context, b *brokenOut, c engine.Container) error {
		return f(OpenDebug(b.cfg.Dir), ctx, c.Stdio[0])
	}
}

var methodUses = map[string]methodUse{
	methodSetNetwork: {use: startRoot},
	methodStartRoot:  {use: startRoot},
	methodCreate:     {use: startContainer},
	methodStart:      {use: startContainer},
	methodDestroy: {idle: true, use: func(ctx context.Context, b *brokenOut, c engine.Container) error {
		return b.Destroy(ctx, c.ID)
	}},
	methodWait: {good: "0", parked: true, use: func(ctx context.Context, b *brokenOut, c engine.Container) error {
		_, err := b.Wait(ctx, c.ID)
		return err
	}},
	methodExec:      {good: "7", use: runExec},
	methodProcesses: {good: `[{"pid":7,"ppid":0,"pgid":7}]`, use: runExec},
	methodWaitPID:   {good: "0", parked: true, use: runExec},
	methodSignal: {use: func(ctx context.Context, b *brokenOut, c engine.Container) error {
		return b.Signal(ctx, c.ID, 15, true)
	}},
	methodState: {good: "2", use: func(ctx context.Context, b *brokenOut, c engine.Container) error {
		_, err := b.Recover(ctx, c)
		return err
	}},
	methodReadCgroup: {good: `{"results":[]}`, use: func(ctx context.Context, b *brokenOut, c engine.Container) error {
		b.containers.get(c.ID)
		usage, err := b.Stats(ctx)
		for _, u := range usage {
			if u.CPU < 0 || u.CPUUser < 0 || u.CPUSystem < 0 || u.MemoryBytes > b.engine.hostMemory || u.Pids > 1<<31 {
				err = fmt.Errorf("usage %+v", u)
			}
		}
		return err
	}},
	methodReadFile: {use: func(ctx context.Context, b *brokenOut, _ engine.Container) error {
		_, err := b.control.kindOf(ctx, "/proc/uptime")
		return err
	}},
	methodStacks: {good: `"stacks"`, use: func(ctx context.Context, b *brokenOut, _ engine.Container) error {
		_, err := OpenDebug(b.cfg.Dir).Stacks(ctx)
		return err
	}},
	methodEvent: {good: `{"event":{}}`, use: func(ctx context.Context, b *brokenOut, c engine.Container) error {
		_, err := OpenDebug(b.cfg.Dir).Event(ctx, c.ID)
		return err
	}},
	methodLog: {use: func(ctx context.Context, b *brokenOut, _ engine.Container) error {
		return OpenDebug(b.cfg.Dir).SetLogLevel(ctx, "debug")
	}},
	methodHeap: {use: profile((*Debug).Heap)},
	methodCPUProfile: {use: profile(func(d *Debug, ctx context.Context, to *os.File) error {
		return d.CPUProfile(ctx, time.Second, to)
	})},
	methodTrace: {use: profile(func(d *Debug, ctx context.Context, to *os.File) error {
		return d.Trace(ctx, time.Second, to)
	})},
}

// badAnswer is what a sandbox does with a call, and what its caller gets: an error
// of the class, or none where the method has no result and that is all that is bad.
type badAnswer struct {
	answer     func(conn net.Conn)
	want       func(error) bool
	inResult   bool
	connection bool // it breaks
}

func writes(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = conn.Write([]byte(text)) }
}

// dripping writes the same for as long as it is read.
func dripping(begin, more string, every time.Duration, written *atomic.Int64) func(net.Conn) {
	return func(conn net.Conn) {
		chunk := []byte(begin)
		for {
			n, err := conn.Write(chunk)
			if written.Add(int64(n)); err != nil {
				return
			}
			chunk = []byte(more)
			time.Sleep(every)
		}
	}
}

func badAnswers(written *atomic.Int64) map[string]badAnswer {
	huge := strings.Repeat("\x1b[2J\r\n", 3000)
	hugeJSON, _ := json.Marshal(huge)
	most := strings.Repeat("9", 60000)
	results := map[string]badAnswer{}
	for name, result := range map[string]string{
		"no result": ``, "null": `null`, "a text": `"` + strings.Repeat("x", 1000) + `"`, "a huge number": most, "a fraction": `1.5`, "below zero": `-1`,
		"a list of lists": `[[[]]]`, "nested": strings.Repeat("[", 30000) + strings.Repeat("]", 30000), "an object of text": `{"results":"x","event":[]}`,
		"odd processes": `[{"pid":-1,"ppid":0,"pgid":-5},{"pid":2147483647,"ppid":-1,"pgid":0},{"pid":0,"ppid":0,"pgid":0}]`,
		"too few":       `{"results":[{"value":"1"}]}`,
		"a huge pid":    `[{"pid":` + most + `}]`,
		"much memory":   `{"results":[{"value":"18446744073709551615"},{"value":"99"},{"value":"usage_usec 5"}]}`,
		"much time":     `{"results":[{"value":"1"},{"value":"99"},{"value":"usage_usec 9223372036854775807"}]}`,
		"no time":       `{"results":[{"value":"1"},{"value":"99"},{"value":"user_usec -5"}]}`,
	} {
		if result != "" {
			result = `,"result":` + result
		}
		results["result: "+name] = badAnswer{answer: writes(`{"success":true` + result + `}`), want: hasClass, inResult: true}
	}
	all := map[string]badAnswer{
		"closes":         {answer: func(net.Conn) {}, want: errdefs.IsUnavailable, connection: true},
		"stops half-way": {answer: writes(`{"success":true,"resu`), want: errdefs.IsUnavailable, connection: true},
		"never answers":  {answer: func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) }, want: errdefs.IsDeadlineExceeded},
		"drips":          {answer: dripping(`{"err":"`, "x", 10*time.Millisecond, written), want: errdefs.IsDeadlineExceeded},
		"has no end":     {answer: dripping(`{"err":"`, strings.Repeat("x", 1<<16), 0, written), want: errdefs.IsInternal},
		"is all blanks":  {answer: dripping(" ", strings.Repeat(" ", 1<<16), 0, written), want: errdefs.IsInternal},
		"is deep":        {answer: writes(strings.Repeat(`{"result":`, 12000)), want: errdefs.IsInternal},
		"is no JSON":     {answer: writes("\x00\x1b]0;title\x07"), want: errdefs.IsInternal},
		"wrong types":    {answer: writes(`{"success":"yes","err":{},"result":0}`), want: errdefs.IsInternal},
		"a huge number":  {answer: writes(`{"success":` + most + `}`), want: errdefs.IsInternal},
		"is empty":       {answer: writes(`{}`), want: errdefs.IsInternal},
		"is a list":      {answer: writes(`[]`), want: errdefs.IsInternal},
		"a huge error":   {answer: writes(`{"success":false,"err":` + string(hugeJSON) + `}`), want: errdefs.IsInternal},
		"many errors":    {answer: writes(`{"success":false,"err":"container not found already exists not started"}`), want: hasClass},
	}
	for name, bad := range results {
		all[name] = bad
	}
	return all
}

// hasClass is true for no error, and for one with a class.
func hasClass(err error) bool {
	for _, is := range []func(error) bool{
		errdefs.IsNotFound, errdefs.IsUnavailable, errdefs.IsDeadlineExceeded, errdefs.IsFailedPrecondition,
		errdefs.IsInvalidArgument, errdefs.IsAlreadyExists, errdefs.IsInternal,
	} {
		if is(err) {
			return true
		}
	}
	return err == nil
}

// Whatever a sandbox answers to whichever call, the call ends with its context at
// the latest, in a short error with a class, and leaves nothing.
func TestMethodAnswersDoNotHurtTheDaemon(t *testing.T) {
	e := newTestEngine(t)
	root := newRootfs(t)
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	t.Run("all", func(t *testing.T) {
		for method, m := range methodUses {
			t.Run(method, func(t *testing.T) {
				t.Parallel()
				written := new(atomic.Int64)
				for name, bad := range badAnswers(written) {
					// Without a nested t.Run, so that few run at a time.
					written.Store(0)
					tryMethod(t, e, root, method, m, name, bad)
					if n := written.Load(); n > maxReplyTo(method)+1<<20 { // of the sockets' buffers
						t.Errorf("%s: %d bytes were read", name, n)
					}
				}
			})
		}
	})
	eventually(t, func() error {
		if n, f := runtime.NumGoroutine(), descriptors(t); n > goroutines || f > fds {
			stacks := make([]byte, 1<<20)
			return fmt.Errorf("%d goroutines and %d descriptors, %d and %d before:\n%s", n, f, goroutines, fds, stacks[:runtime.Stack(stacks, true)])
		}
		return nil
	})
}

func tryMethod(t *testing.T, e *Engine, root, method string, m methodUse, name string, bad badAnswer) {
	asked := new(atomic.Bool)
	b, end := newBrokenOutOnce(t, e, func(called string, _ json.RawMessage, conn net.Conn) {
		if called == method {
			asked.Store(true)
			bad.answer(conn)
			return
		}
		text := `{"success":true}`
		good := methodUses[called].good
		if m.idle && called == methodProcesses {
			good = "[]"
		}
		if good != "" {
			text = `{"success":true,"result":` + good + `}`
		}
		_, _ = conn.Write([]byte(text))
	})
	defer end()
	if method == methodSetNetwork || method == methodStartRoot {
		ns := newTestNetNS(t)
		b.cfg.NetNS = ns.path
	}
	if err := os.WriteFile(filepath.Join(b.cfg.Dir, bootLogName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	null := e.null
	c := engine.Container{ID: "c", Spec: shell(root, "true"), Stdio: [3]*os.File{null, null, null}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	if m.parked && bad.connection || name == "never answers" || name == "drips" {
		cancel()
		ctx, cancel = context.WithTimeout(context.Background(), 300*time.Millisecond)
	}
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.use(ctx, b, c) }()
	var err error
	select {
	case err = <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: it hangs", name)
	}
	want := bad.want
	if m.parked && bad.connection {
		want = errdefs.IsDeadlineExceeded
	}
	if !asked.Load() {
		t.Errorf("%s: it was not called; %v", name, err)
	}
	if !want(err) || !hasClass(err) {
		t.Errorf("%s: %.300v", name, err)
	}
	if err == nil {
		return
	}
	if text := err.Error(); len(text) > 4*maxQuote || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%s: an error of %d bytes: %.300q", name, len(text), text)
	}
}

// A method that is added is tried, too.
func TestMethodsAreAllTried(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, id := range spec.Names {
				if !strings.HasPrefix(id.Name, "method") || len(spec.Values) <= i {
					continue
				}
				value, ok := spec.Values[i].(*ast.BasicLit)
				if !ok {
					continue
				}
				method, err := strconv.Unquote(value.Value)
				if err != nil {
					t.Fatal(err)
				}
				found++
				if _, tried := methodUses[method]; !tried && method != methodOpenMount { // which a gofer calls
					t.Errorf("%s of %s is not tried", id.Name, name)
				}
			}
			return true
		})
	}
	if found < len(methodUses) {
		t.Errorf("%d methods were found, %d are tried", found, len(methodUses))
	}
	// No call names its method in another way.
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") && (bytes.Contains(b, []byte(`.call(ctx, "`)) || bytes.Contains(b, []byte(`.park(ctx, "`))) {
			t.Errorf("%s calls a method without a name", name)
		}
	}
}

// A connection that outlives its sandbox, because that gave its end to another
// process, holds up no end.
func TestWaitOnAConnectionThatOutlivesItsSandbox(t *testing.T) {
	b := newBrokenOut(t, newTestEngine(t), func(_ string, _ json.RawMessage, conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) })
	type result struct {
		status engine.ExitStatus
		err    error
	}
	ended := make(chan result, 1)
	go func() {
		status, err := b.Wait(context.Background(), "c")
		ended <- result{status, err}
	}()
	if err := b.sentry.proc.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-ended:
		if r.status.Code != 137 || !errdefs.IsUnavailable(r.err) {
			t.Errorf("%+v, want 137 and Unavailable", r)
		}
	case <-time.After(30 * time.Second):
		t.Error("Wait does not end")
	}
}

func TestExitStatusIsInRange(t *testing.T) {
	for _, ws := range []uint32{0, 0x100, 0xff00, 9, 0x7f, 0x137f, 0xffff, 0xffffffff, 0x80, 0x7fffffff} {
		if st := exitStatus(unix.WaitStatus(ws)); st.Code < 0 || st.Code > 255 || st.Signal < 0 || st.Signal > 127 {
			t.Errorf("%#x is %+v", ws, st)
		}
	}
}
