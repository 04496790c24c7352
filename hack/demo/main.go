// Command demo shows the whole main path on a machine that has nothing but root:
// it starts a daemon on temporary directories, pulls images from a registry on
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
	"time"

	"github.com/cri-sandbox/cri-sandbox/hack/steps"
	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

func main() { steps.Main("demo", 5*time.Minute, run) }

func run(ctx context.Context) (err error) {
	d := &demo{}
	defer func() {
		if d.env == nil {
			return
		}
		if _, gone := os.Stat(d.env.LogFile()); err != nil && gone == nil {
			fmt.Fprintf(os.Stderr, "\nlast lines of the daemon's log:\n%s\n", d.env.LogTail(30))
		}
		err = errors.Join(err, d.env.Close())
	}()
	return steps.Run(ctx, d.steps())
}

// start sets the node up and starts the daemon on it.
func (d *demo) start(ctx context.Context) (string, error) {
	env, err := testenv.New(ctx, testenv.Options{})
	if err != nil {
		return "", err
	}
	d.env = env
	return env.String(), nil
}
