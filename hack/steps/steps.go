// Package steps is of programs that a person watches: one line a step, with its time, and
// what it has to show below. It knows nothing of nodes.
package steps

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// Main runs a program that a signal or the limit ends in order: a hung step must end in
// the clean-up, not in a hung terminal.
func Main(name string, limit time.Duration, run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\n%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Step is one line. Do returns what is to be shown below it.
type Step struct {
	Title string
	Do    func(ctx context.Context) (string, error)
}

// width is of the column of titles.
const width = 74

// Run runs the steps one after the other until one fails, and prints how long all
// of them took. The error names the step.
func Run(ctx context.Context, all []Step) error {
	begin := time.Now()
	for _, s := range all {
		if err := s.run(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("\ndone in %s; nothing is left\n", Round(time.Since(begin)))
	return nil
}

func (s Step) run(ctx context.Context) error {
	fmt.Printf("%-*s", width, s.Title+" …")
	begin := time.Now()
	out, err := s.Do(ctx)
	fmt.Printf("%9s\n", Round(time.Since(begin)))
	for line := range strings.Lines(strings.TrimRight(out, "\n")) {
		fmt.Printf("    %s\n", strings.TrimRight(line, "\n"))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Title, err)
	}
	return nil
}

// Round takes off digits that nobody reads.
func Round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
