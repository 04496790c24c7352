// Command demo shows the whole main path on a machine that has nothing but root:
// it starts a daemon on temporary folders, pulls images from a registry on
// loopback, and drives a pod of two containers with the real crictl, step by step
// with the time each step took. It ends with a look for anything that is left
// over, and exits 1 when there is, or when a step fails.
//
// It owns what it makes, by hack/testenv, and removes it also when a step fails or
// the terminal says Ctrl-C.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A hung step must end in the clean-up, not in a hung terminal.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	d := &demo{begin: time.Now()}
	defer func() {
		if d.env == nil {
			return
		}
		if _, gone := os.Stat(d.env.DaemonLog()); err != nil && gone == nil {
			fmt.Fprintf(os.Stderr, "\nlast lines of the daemon's log:\n%s\n", d.env.LogTail(30))
		}
		err = errors.Join(err, d.env.Close())
	}()
	for _, s := range d.steps() {
		if err := d.step(ctx, s); err != nil {
			return err
		}
	}
	fmt.Printf("\ndone in %s; nothing is left\n", round(time.Since(d.begin)))
	return nil
}

// step is one line of the demo. Its function returns what is to be shown.
type step struct {
	title string
	do    func(ctx context.Context) (string, error)
}

func (d *demo) step(ctx context.Context, s step) error {
	fmt.Printf("%-66s", s.title+" …")
	begin := time.Now()
	out, err := s.do(ctx)
	fmt.Printf("%9s\n", round(time.Since(begin)))
	for line := range strings.Lines(strings.TrimRight(out, "\n")) {
		fmt.Printf("    %s\n", strings.TrimRight(line, "\n"))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.title, err)
	}
	return nil
}

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}

// start sets the node up and starts the daemon on it.
func (d *demo) start(ctx context.Context) (string, error) {
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		return "", err
	}
	d.env = env
	return fmt.Sprintf("socket %s\nregistry %s, pods in %s on bridge %s", env.Endpoint, env.Registry, env.Subnet, env.Name), nil
}
