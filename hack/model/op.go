package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// How much of everything a program uses.
const (
	pods       = 3
	containers = 2 // in each pod
	images     = 2
)

// Kind is a request, or something that happens to the runtime.
type Kind string

// The kinds. Pod and container are places: what is made in one gets an id, and the
// place can be used again after its removal.
const (
	RunPod     Kind = "run"
	StopPod    Kind = "stop-pod"
	RemovePod  Kind = "remove-pod"
	ResizePod  Kind = "resize-pod" // Arg is in units of memory
	Forward    Kind = "forward"    // asks for the URL of a port
	Create     Kind = "create"     // Arg is what it runs, see scripts
	Start      Kind = "start"
	Stop       Kind = "stop" // Arg is the grace period in seconds
	Remove     Kind = "remove"
	Resize     Kind = "resize" // Arg is in units of memory
	Exec       Kind = "exec"   // Arg is the exit code that is asked for
	Quit       Kind = "quit"   // by a signal from inside
	OpenExec   Kind = "open-exec"
	OpenAttach Kind = "open-attach"
	ReopenLog  Kind = "reopen-log"
	Pull       Kind = "pull"         // Arg is the image
	RemoveImg  Kind = "remove-image" // likewise
	Die        Kind = "die"          // the sandbox process is killed
	Restart    Kind = "restart"      // the daemon is killed and started, alone in its step
)

var kinds = []Kind{RunPod, StopPod, RemovePod, ResizePod, Forward, Create, Start, Stop, Remove, Resize, Exec, Quit,
	OpenExec, OpenAttach, ReopenLog, Pull, RemoveImg, Die, Restart}

// Op is one request.
type Op struct {
	Kind Kind
	Pod  int
	Ctr  int
	Arg  int
	Cut  bool // it is cut off, and then made again
}

// Step is requests that are made at the same time. With Crash the daemon is killed
// meanwhile; then all of them are cut off.
type Step struct {
	Ops   []Op
	Crash bool
}

// Program is steps, one after the other.
type Program []Step

// String is the form that Parse reads: a step a line.
func (p Program) String() string {
	var b strings.Builder
	for _, s := range p {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

func (s Step) String() string {
	var ops []string
	for _, o := range s.Ops {
		ops = append(ops, o.String())
	}
	text := strings.Join(ops, " | ")
	if s.Crash {
		text += " | crash"
	}
	return text
}

func (o Op) String() string {
	text := fmt.Sprintf("%s %d %d %d", o.Kind, o.Pod, o.Ctr, o.Arg)
	if o.Cut {
		text += " cut"
	}
	return text
}

// Parse reads a program. Empty lines and those that begin with # are skipped.
func Parse(text string) (Program, error) {
	var p Program
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var s Step
		for word := range strings.SplitSeq(line, "|") {
			if word = strings.TrimSpace(word); word == "crash" {
				s.Crash = true
				continue
			}
			o, err := parseOp(word)
			if err != nil {
				return nil, fmt.Errorf("parse line %d: %w", n+1, err)
			}
			s.Ops = append(s.Ops, o)
		}
		p = append(p, s)
	}
	return p, nil
}

func parseOp(text string) (Op, error) {
	f := strings.Fields(text)
	if len(f) < 4 || len(f) > 5 || !slices.Contains(kinds, Kind(f[0])) || len(f) == 5 && f[4] != "cut" {
		return Op{}, fmt.Errorf("%q is no request", text)
	}
	o := Op{Kind: Kind(f[0]), Cut: len(f) == 5}
	for i, to := range []*int{&o.Pod, &o.Ctr, &o.Arg} {
		var err error
		if *to, err = strconv.Atoi(f[i+1]); err != nil {
			return Op{}, err
		}
	}
	if o.Pod < 0 || o.Pod >= pods || o.Ctr < 0 || o.Ctr >= containers || o.Arg < 0 {
		return Op{}, fmt.Errorf("%q names a place that does not exist", text)
	}
	return o, nil
}
