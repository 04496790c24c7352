package main

import (
	"bufio"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What the pod's program and bench say to each other, without a pod.
func TestTransfer(t *testing.T) {
	program, err := buildProgram(t.Context(), t.TempDir(), "network")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-listen", "127.0.0.1:0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	got, err := transfer(t.Context(), address, 20*time.Millisecond)
	if err != nil || len(got) != 3 {
		t.Fatalf("got %v, %v", got, err)
	}
	for i, name := range []string{"TCP out of a pod", "TCP into a pod", "TCP round trip"} {
		if got[i].Name != name || got[i].P50 <= 0 {
			t.Errorf("got %+v", got[i])
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := transfer(ctx, address, time.Hour); err == nil {
		t.Error("a run that was ended goes on")
	}
}
