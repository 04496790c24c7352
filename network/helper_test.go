package network

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// helperEnv makes the test program a daemon that runs one plugin, named by the
// value, that hangs.
const helperEnv = "NETWORK_TEST_HELPER"

func runHelper(plugin string) {
	_, err := runAction(context.Background(), plugin, "slow:10m", "")
	fmt.Fprintln(os.Stderr, "the plugin ended:", err)
	os.Exit(1)
}

// A plugin that went on after the daemon's death would set up again what the next
// daemon has undone.
func TestExecPluginDiesWithTheDaemon(t *testing.T) {
	path := program(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(self)
	daemon.Env = append(os.Environ(), helperEnv+"="+path)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin runs", func() bool { return len(processesOf(t, path)) > 0 })
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	eventually(t, "the plugin is gone", func() bool { return len(processesOf(t, path)) == 0 })
}
