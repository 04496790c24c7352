package enginetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
)

// Subject is an engine under test, on a node of its own.
type Subject struct {
	// Engine is what the daemon has. It is asked once a test; each time it is
	// what another daemon on the same node has.
	Engine func(testing.TB) engine.Engine
	// Config is of a new sandbox without a network, or with one that is ready.
	Config func(testing.TB) engine.Config
	// Spec is of a container that runs a script with /bin/sh, in a pid namespace
	// of its own.
	Spec func(t testing.TB, script string) *specs.Spec
}

// patience bounds what should come at once.
const patience = 60 * time.Second

// Run runs the contract's tests.
func Run(t *testing.T, s Subject) {
	for name, test := range map[string]func(bench){
		"Validate":          testValidate,
		"ValidateSpec":      testValidateSpec,
		"Config":            testConfig,
		"Prepare":           testPrepare,
		"PrepareAsIs":       testPrepareAsIs,
		"BindRefuses":       testBindRefuses,
		"BindDead":          testBindDead,
		"Discard":           testDiscard,
		"Order":             testOrder,
		"ExitStatus":        testExitStatus,
		"UnknownContainer":  testUnknownContainer,
		"EndedContainer":    testEndedContainer,
		"SignalFirst":       testSignalFirst,
		"SignalAll":         testSignalAll,
		"Exec":              testExec,
		"ExecEnds":          testExecEndsWithContext,
		"ExecBadInput":      testExecBadInput,
		"Command":           testCommand,
		"Streams":           testStreams,
		"Hold":              testHold,
		"Terminal":          testTerminal,
		"Ports":             testPorts,
		"Stats":             testStats,
		"Inodes":            testInodes,
		"Descriptors":       testDescriptors,
		"ContextOfWait":     testContextOfWait,
		"Death":             testDeath,
		"Adopt":             testAdopt,
		"AdoptWrongProcess": testAdoptWrongProcess,
		"StartAfterAdopt":   testStartAfterAdopt,
		"Recover":           testRecover,
		"Reap":              testReap,
		"Find":              testFind,
	} {
		t.Run(name, func(t *testing.T) { test(bench{t, s}) })
	}
}

// bench is a test's hold on its subject.
type bench struct {
	*testing.T
	s Subject
}

// node is a sandbox and what it was made of.
type node struct {
	engine.Sandbox
	bench
	engine engine.Engine
	cfg    engine.Config
}

// sandbox boots a sandbox, starts its root, and kills it after the test.
func (b bench) sandbox() node {
	b.Helper()
	n := b.booted()
	b.must(n.StartRoot(b.ctx()))
	return n
}

func (b bench) booted() node {
	b.Helper()
	e, cfg := b.s.Engine(b), b.s.Config(b)
	sb, err := e.Boot(b.ctx(), cfg)
	b.must(err)
	return b.node(e, cfg, sb)
}

// node takes a sandbox over, and kills it after the test.
func (b bench) node(e engine.Engine, cfg engine.Config, sb engine.Sandbox) node {
	b.Helper()
	n := node{Sandbox: sb, bench: b, engine: e, cfg: cfg}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := n.Kill(ctx); err != nil {
			b.Errorf("kill the sandbox: %v", err)
		}
	})
	return n
}

// ability skips the test where the sandbox does not have it.
func ability[T any](n node) T {
	n.Helper()
	able, err := engine.Ability[T](n.Sandbox, "do what this test is of")
	if errdefs.IsNotImplemented(err) {
		n.Skip(err)
	}
	return able
}

// adopt takes the sandbox over as another daemon.
func (n node) adopt() node {
	n.Helper()
	other := node{bench: n.bench, engine: n.s.Engine(n), cfg: n.cfg}
	var err error
	other.Sandbox, err = other.engine.Adopt(n.ctx(), n.cfg, n.Process())
	n.must(err)
	return other
}

func (b bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.Cleanup(cancel)
	return ctx
}

func (b bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// is checks the class of an error.
func (b bench) is(what string, err error, class func(error) bool) {
	b.Helper()
	if err == nil || !class(err) {
		b.Errorf("%s: error %v is of another class", what, err)
	}
}

// container describes a container whose streams are /dev/null.
func (b bench) container(script string) engine.Container {
	b.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	b.must(err)
	b.Cleanup(func() { null.Close() })
	return engine.Container{ID: newID(), Spec: b.s.Spec(b, script), Stdio: [3]*os.File{null, null, null}}
}

// start creates and starts a container.
func (n node) start(script string) engine.Container {
	n.Helper()
	return n.startThis(n.container(script))
}

func (n node) startThis(c engine.Container) engine.Container {
	n.Helper()
	n.must(n.Create(n.ctx(), c))
	n.must(n.Start(n.ctx(), c))
	return c
}

// startReady starts a container and waits until it would not miss a signal.
func (n node) startReady(script string) engine.Container {
	n.Helper()
	c := n.start(script)
	n.awaitReady(c)
	return c
}

func (n node) awaitReady(c engine.Container) {
	n.Helper()
	if st := n.exec(c, AwaitReady); st.Code != 0 {
		n.Fatalf("await a container: %+v", st)
	}
}

func (n node) exec(c engine.Container, script string) engine.ExitStatus {
	n.Helper()
	st, err := n.Exec(n.ctx(), c.ID, commandOf(script))
	n.must(err)
	return st
}

func (n node) wait(c engine.Container) engine.ExitStatus {
	n.Helper()
	st, err := n.Wait(n.ctx(), c.ID)
	n.must(err)
	return st
}

func commandOf(script string) engine.Exec {
	return engine.Exec{Process: &specs.Process{Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/"}}
}

func newID() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// pipe is what a container writes to and the test reads from. The reading end
// gives up after the patience.
func (b bench) pipe() (r, w *os.File) {
	b.Helper()
	var fds [2]int
	b.must(unix.Pipe2(fds[:], unix.O_CLOEXEC))
	b.must(unix.SetNonblock(fds[0], true))
	r, w = os.NewFile(uintptr(fds[0]), "read"), os.NewFile(uintptr(fds[1]), "write")
	b.Cleanup(func() { r.Close(); w.Close() })
	b.must(r.SetReadDeadline(time.Now().Add(patience)))
	return r, w
}
