package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/printable"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// debugLimit bounds the wait for a sandbox beyond the time that was asked for: one
// that hangs is what people look at.
const debugLimit = 10 * time.Second

// debugTarget is the pod of a debug command.
type debugTarget struct {
	*gvisor.Debug
	pod        string
	containers map[string]string // names by id
}

// debugVerb is one sub-command: run gets the pod, and the arguments behind it.
type debugVerb struct {
	use, short string
	args       int // behind POD
	timed      bool
	file       bool
	run        func(ctx context.Context, t debugTarget, o debugOptions, args []string) error
}

type debugOptions struct {
	over time.Duration
	out  io.Writer
	file *os.File
}

func debugCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Look into the sandbox of a running pod",
		Long: "Look into the sandbox of a running pod, by its own socket: no daemon is needed.\n" +
			"POD is an id or the beginning of one, a name, or NAMESPACE/NAME.",
	}
	for _, v := range []debugVerb{
		{use: "stacks POD", short: "Print the stacks of the sandbox's goroutines", run: debugStacks},
		{use: "ps POD", short: "List the processes of all containers", run: debugProcesses},
		{use: "events POD", short: "Print what the sandbox has counted for each container, one JSON object a line", run: debugEvents},
		{use: "log-level POD warning|info|debug", args: 1, short: "Change the level of the sandbox's log ([debug] sandbox_log)", run: debugLogLevel},
		{use: "heap POD", file: true, short: "Write a profile of the heap ([debug] profile)", run: func(ctx context.Context, t debugTarget, o debugOptions, _ []string) error {
			return t.Heap(ctx, o.file)
		}},
		{use: "cpu-profile POD", file: true, timed: true, short: "Write a profile of the processor's use ([debug] profile)", run: func(ctx context.Context, t debugTarget, o debugOptions, _ []string) error {
			return t.CPUProfile(ctx, o.over, o.file)
		}},
		{use: "trace POD", file: true, timed: true, short: "Write a trace for `go tool trace` ([debug] profile)", run: func(ctx context.Context, t debugTarget, o debugOptions, _ []string) error {
			return t.Trace(ctx, o.over, o.file)
		}},
	} {
		cmd.AddCommand(v.command())
	}
	return cmd
}

func (v debugVerb) command() *cobra.Command {
	cmd := &cobra.Command{Use: v.use, Short: v.short, Args: cobra.ExactArgs(1 + v.args)}
	load := daemonFlags(cmd)
	var (
		path string
		o    debugOptions
	)
	if v.timed {
		cmd.Flags().DurationVar(&o.over, "duration", 10*time.Second, "how long to watch")
	}
	if v.file {
		cmd.Flags().StringVarP(&path, "output", "o", "", "file to write; must not exist")
		_ = cmd.MarkFlagRequired("output")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		cfg, err := load()
		if err != nil {
			return err
		}
		t, err := findTarget(cfg, args[0])
		if err != nil {
			return err
		}
		o.out = cmd.OutOrStdout()
		if v.file {
			if o.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
				return fmt.Errorf("make output file: %w", err)
			}
			defer func() {
				err = errors.Join(err, o.file.Close())
				if err != nil {
					os.Remove(path)
				}
			}()
		}
		ctx, cancel := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
		defer cancel()
		ctx, stop := context.WithTimeout(ctx, o.over+debugLimit)
		defer stop()
		return v.run(ctx, t, o, args[1:])
	}
	return cmd
}

// findTarget finds a pod by the records, which it only reads.
func findTarget(cfg config, name string) (debugTarget, error) {
	dir := cfg.paths().Records()
	pods, err := record.Find(dir)
	if err != nil {
		return debugTarget{}, err
	}
	var matches []record.PodMeta
	for _, p := range pods {
		m := p.Config.Proto.GetMetadata()
		if p.ID == name {
			matches = []record.PodMeta{p}
			break
		}
		if strings.HasPrefix(p.ID, name) || m.GetName() == name || m.GetNamespace()+"/"+m.GetName() == name {
			matches = append(matches, p)
		}
	}
	switch len(matches) {
	case 0:
		return debugTarget{}, fmt.Errorf("pod %q: %w", name, errdefs.ErrNotFound)
	case 1:
	default:
		var ids []string
		for _, m := range matches {
			ids = append(ids, m.ID)
		}
		return debugTarget{}, fmt.Errorf("%q names several pods: %s", name, strings.Join(ids, " "))
	}
	id := matches[0].ID
	containers, err := record.ContainerNames(dir, id)
	if err != nil {
		return debugTarget{}, err
	}
	return debugTarget{Debug: gvisor.OpenDebug(cfg.paths().Engine(id)), pod: id, containers: containers}, nil
}

func debugStacks(ctx context.Context, t debugTarget, o debugOptions, _ []string) error {
	stacks, err := t.Stacks(ctx)
	if err != nil {
		return err
	}
	_, err = io.WriteString(o.out, stacks)
	return err
}

// eachContainer goes on after a container that is not in the sandbox: it was not
// started, or has been destroyed.
func (t debugTarget) eachContainer(f func(id, name string) error) error {
	var errs []error
	answers := 0
	for id, name := range t.containers {
		if err := f(id, name); err != nil {
			if errdefs.IsUnavailable(err) {
				return err
			}
			errs = append(errs, err)
			continue
		}
		answers++
	}
	if answers > 0 {
		return nil
	}
	return errors.Join(errs...)
}

func debugProcesses(ctx context.Context, t debugTarget, o debugOptions, _ []string) error {
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CONTAINER\tPID\tPPID\tUID\tTHREADS\tTTY\tSTARTED\tTIME\tCOMMAND")
	err := t.eachContainer(func(id, name string) error {
		ps, err := t.Processes(ctx, id)
		for _, p := range ps {
			writeProcess(w, name, p)
		}
		return err
	})
	return errors.Join(err, w.Flush())
}

// writeProcess writes a row of the table. Nothing in it makes another one.
func writeProcess(w io.Writer, container string, p gvisor.GuestProcess) {
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", printable.Line(container), p.PID, p.PPID, p.UID, len(p.Threads),
		printable.Line(p.TTY), printable.Line(p.STime), printable.Line(p.Time), printable.Line(p.Cmd))
}

func debugEvents(ctx context.Context, t debugTarget, o debugOptions, _ []string) error {
	return t.eachContainer(func(id, _ string) error {
		event, err := t.Event(ctx, id)
		if err != nil {
			return err
		}
		var line bytes.Buffer // a line, whatever stands between its values
		if err := json.Compact(&line, event); err != nil {
			return fmt.Errorf("read events of %s: %w", id, err)
		}
		_, err = fmt.Fprintln(o.out, line.String())
		return err
	})
}

func debugLogLevel(ctx context.Context, t debugTarget, o debugOptions, args []string) error {
	if err := t.SetLogLevel(ctx, args[0]); err != nil {
		return err
	}
	_, err := fmt.Fprintln(o.out, t.LogPath())
	return err
}
