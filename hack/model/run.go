package model

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Target is a node with a daemon under test, with no pods and no images.
type Target struct {
	Runtime runtimeapi.RuntimeServiceClient
	Image   runtimeapi.ImageServiceClient
	// Images are references that can be pulled, at least two.
	Images []string
	// Pod is the config of the pod of a place, always the same.
	Pod func(place int) *runtimeapi.PodSandboxConfig

	// Kill ends the daemon, and Start starts it again.
	Kill  func() error
	Start func(context.Context) error
	// AtOnce says that Kill cuts off what the daemon is doing. Otherwise it is
	// called when the daemon does nothing.
	AtOnce bool
	// KillSandbox ends a pod's sandbox process. One that is gone is no error.
	KillSandbox func(ctx context.Context, id string) error
	// Left says what there is of pods. After the last one it must be nothing.
	Left func(context.Context) ([]string, error)

	// Own are texts of this node alone, such as its name, in what it answers.
	Own []string

	// Fault, if set, says what the daemon tells of that is wrong whatever it answers, such
	// as a data race. No smaller program is looked for then.
	Fault func() error

	// Patience is how long the runtime may take to show what it has answered.
	Patience time.Duration
}

// UserNamespace is what the kubelet asks for with hostUsers: false.
func UserNamespace() *runtimeapi.UserNamespace {
	ids := []*runtimeapi.IDMapping{{HostId: 1966080, Length: 65536}}
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids, Gids: ids}
}

// Difference is a program's run that the model does not explain.
type Difference struct {
	Step int // from 0; the program's length means after its end
	Text string
	// variant is the one that answers otherwise, see Plan.
	variant string
	kind    string // those of the same kind are the same defect, as far as one can tell
}

func (d *Difference) Error() string { return fmt.Sprintf("step %d: %s", d.Step+1, d.Text) }

// run is one run of a program.
type run struct {
	Target
	program Program
	states  []state // that the model may be in
	ids     ids
	ready   map[string]bool // containers that would not miss a signal
	events  *events

	steady     bool        // restarts are passed over
	transcript *transcript // nil where nobody wants it
}

// ids are those of the places' last pods and containers. A place that was never
// used has one that does not exist.
type ids struct {
	mu   sync.Mutex
	pods [pods]string             // +checklocks:mu
	ctrs [pods][containers]string // +checklocks:mu
}

const noID = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"

// Run runs a program and removes what it made. The error is a *Difference, or
// says why the program could not be run.
func (t Target) Run(ctx context.Context, p Program) error {
	return t.newRun(p).run(ctx)
}

// answers runs a program, too, and returns what it was answered in each step, and at
// the end. With steady, restarts are passed over.
func (t Target) answers(ctx context.Context, p Program, steady bool) ([]string, error) {
	r := t.newRun(p)
	r.steady, r.transcript = steady, newTranscript()
	err := r.run(ctx)
	return r.transcript.steps, err
}

func (t Target) newRun(p Program) *run {
	r := &run{Target: t, program: p, states: []state{{}}, ready: map[string]bool{}}
	for i := range r.ids.pods {
		r.ids.pods[i] = noID
		for j := range r.ids.ctrs[i] {
			r.ids.ctrs[i][j] = noID
		}
	}
	return r
}

func (r *run) run(ctx context.Context) error {
	if err := r.subscribe(ctx); err != nil {
		return err
	}
	for i, s := range r.program {
		if err := r.step(ctx, s); err != nil {
			return at(i, err)
		}
	}
	return at(len(r.program), r.finish(ctx))
}

func at(step int, err error) error {
	if d, ok := err.(*Difference); ok {
		d.Step = step
	}
	return err
}

func differ(format string, args ...any) error {
	return &Difference{Text: fmt.Sprintf(format, args...), kind: format}
}

// finish removes everything and looks for what is left.
func (r *run) finish(ctx context.Context) error {
	var all Step
	for i := range pods {
		all.Ops = append(all.Ops, Op{Kind: RemovePod, Pod: i})
	}
	if err := r.step(ctx, all); err != nil {
		return err
	}
	if err := r.events.finish(ctx, r.Patience, true); err != nil {
		return err
	}
	for i := range images {
		if err := r.step(ctx, Step{Ops: []Op{{Kind: RemoveImg, Arg: i}}}); err != nil {
			return err
		}
	}
	if r.transcript != nil {
		r.writeEvents()
	}
	left, err := r.Left(ctx)
	if err == nil && len(left) > 0 {
		err = differ("left behind:\n  %s", strings.Join(left, "\n  "))
	}
	return err
}

// step does a step and compares.
func (r *run) step(ctx context.Context, s Step) error {
	before := r.states
	answers, err := r.ask(ctx, s)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if !a.cut && (a.code == codes.Unknown || a.code == codes.Internal) {
			return differ("%s: %s: no answer to a request may be that", a.op, a.text)
		}
	}
	seen := map[state]bool{}
	r.states = nil
	for _, from := range before {
		for _, to := range explain(from, answers) {
			if !seen[to] {
				seen[to] = true
				r.states = append(r.states, to)
			}
		}
	}
	if len(r.states) == 0 {
		return differ("the model does not give these answers in any order:\n%s\nin the state\n%s", list(answers), before[0])
	}
	if err := r.compare(ctx); err != nil {
		return err
	}
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	if r.transcript != nil {
		r.write(ctx, answers)
	}
	return nil
}

func list(answers []answer) string {
	var b strings.Builder
	for _, a := range answers {
		fmt.Fprintf(&b, "  %s: %s\n", a.op, a.text)
	}
	return b.String()
}

// ask makes the requests of a step.
func (r *run) ask(ctx context.Context, s Step) ([]answer, error) {
	if len(s.Ops) == 1 && s.Ops[0].Kind == Restart {
		if r.steady {
			return []answer{{op: s.Ops[0], code: codes.OK}}, nil
		}
		if err := r.events.finish(ctx, r.Patience, true); err != nil {
			return nil, err
		}
		return []answer{{op: s.Ops[0], code: codes.OK}}, r.restart(ctx)
	}
	return r.together(ctx, s)
}

// restart kills the daemon and starts it.
func (r *run) restart(ctx context.Context) error {
	if err := r.Kill(); err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	return r.subscribe(ctx)
}

// together makes requests at the same time. What is cut off is made again when
// all of them are over and, if that is part of the step, the daemon is back.
func (r *run) together(ctx context.Context, s Step) ([]answer, error) {
	answers := make([]answer, len(s.Ops))
	known := r.known()
	crash := s.Crash && r.AtOnce
	var wg sync.WaitGroup
	for i, o := range s.Ops {
		cut := o.Cut || s.Crash
		if o.Kind == Die {
			cut = crash // who kills asks the daemon for the process
		}
		wg.Go(func() {
			callCtx := ctx
			if cut && !crash {
				var cancel context.CancelFunc
				callCtx, cancel = context.WithTimeout(ctx, delay(o))
				defer cancel()
			}
			reply, err := r.call(callCtx, o, known)
			answers[i] = answerTo(o, reply, err)
			answers[i].cut = cut
		})
	}
	if crash {
		time.Sleep(delay(s.Ops[0]))
		if err := r.restartUnder(ctx); err != nil {
			return nil, err
		}
	}
	wg.Wait()
	again := answers
	for _, a := range answers {
		if a.cut {
			reply, err := r.call(ctx, a.op, r.known())
			b := answerTo(a.op, reply, err)
			for j := range again {
				// The daemon may not yet know of a sandbox that was killed.
				if again[j].op.Kind != Die {
					b.after = append(b.after, j)
				}
			}
			again = append(again, b)
		}
	}
	if s.Crash && !r.AtOnce {
		if err := r.events.finish(ctx, r.Patience, true); err != nil {
			return nil, err
		}
		if err := r.restart(ctx); err != nil {
			return nil, err
		}
	}
	return again, nil
}

// restartUnder kills the daemon while it works; nobody learns of all events then.
func (r *run) restartUnder(ctx context.Context) error {
	if err := r.Kill(); err != nil {
		return err
	}
	if err := r.events.finish(ctx, r.Patience, false); err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	return r.subscribe(ctx)
}

// delay is when a request is cut off. It only has to differ between requests and
// be the same each time.
func delay(o Op) time.Duration {
	n := uint64(o.Pod*31+o.Ctr*17+o.Arg*7) + uint64(len(o.Kind))*2654435761
	return time.Duration(n%20) * time.Duration(n%20) * 100 * time.Microsecond
}

func answerTo(o Op, reply proto.Message, err error) answer {
	a := answer{op: o, code: status.Code(err), text: "OK", reply: reply, err: err}
	if err != nil {
		a.text = err.Error()
	}
	return a
}

// awaitReady waits until the containers that run would not miss a signal.
func (r *run) awaitReady(ctx context.Context) error {
	known := r.known()
	for i, p := range r.states[0].Pods {
		for j, c := range p.Ctrs {
			id := known.ctrs[i][j]
			if c.Phase != running || r.ready[id] {
				continue
			}
			if err := r.ready1(ctx, id); err != nil {
				return differ("the container at %d %d does not become ready: %v", i, j, err)
			}
			r.ready[id] = true
		}
	}
	return nil
}
