// Package e2e drives the built daemon as its users do: over CRI, with real
// sandboxes, real CNI plugins and a real registry. All tests share one node
// (package testenv); one that breaks the node makes its own. After all of them
// nothing may be left on the machine, which TestMain checks.
package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// limit bounds any one call or wait of a test.
const limit = 60 * time.Second

// node is shared by the tests of this package.
var node *testenv.Env

func TestMain(m *testing.M) {
	if os.Getenv(localUserEnv) != "" {
		beLocalUser(os.Stdin, os.Stdout)
		return
	}
	if os.Geteuid() != 0 {
		fmt.Println("=== SKIPPED: end-to-end tests need root ===")
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	node, err = testenv.New(ctx, testenv.Options{DaemonArgs: []string{"--log-level", "2"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up a node (make setup build first?):", err)
		return 1
	}
	code := 1
	defer func() {
		if code != 0 {
			fmt.Fprintf(os.Stderr, "--- end of the daemon's log ---\n%s\n", node.LogTail(60))
		}
		if err := node.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "tear down the node:", err)
		}
	}()
	if err := pullAll(ctx, node); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := node.MarkBaseline(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code = m.Run()
	if err := node.Audit(context.Background()); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "after all tests:", err)
		code = 1
	}
	if missing := untested(testenv.Calls()); code == 0 && wholeRun() && len(missing) > 0 {
		fmt.Fprintln(os.Stderr, "after all tests:\n  "+strings.Join(missing, "\n  "))
		code = 1
	}
	return code
}

// pullAll pulls the test images, so that no test depends on another's pull.
func pullAll(ctx context.Context, env *testenv.Env) error {
	for name, ref := range env.Images {
		_, err := env.Client.Image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
		if err != nil {
			return fmt.Errorf("pull %s: %w", name, err)
		}
	}
	return nil
}
