package logs

import (
	"io"
	"testing"

	"github.com/containerd/errdefs"
)

func TestInput(t *testing.T) {
	cfg := testConfig(t)
	cfg.Stdin = true
	s := mustCreate(t, cfg)
	if _, err := s.Input(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("nobody reads: %v, want FailedPrecondition", err)
	}
	stdin := container(t, s)[0]
	held, err := s.Input() // the sandbox holds this one
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"one", "two"} {
		in, err := s.Input()
		if err != nil {
			t.Fatal(err)
		}
		write(t, in, words)
		in.Close()
		got := make([]byte, 3)
		if _, err := io.ReadFull(stdin, got); err != nil || string(got) != words {
			t.Fatalf("read %q, %v", got, err)
		}
	}
	last, err := s.Input()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // idempotent
		if err := s.EndInput(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Input(); !errdefs.IsNotFound(err) {
		t.Errorf("after the end: %v, want NotFound", err)
	}
	write(t, last, "end")
	last.Close()
	held.Close()
	if rest, err := io.ReadAll(stdin); err != nil || string(rest) != "end" {
		t.Errorf("read %q, %v", rest, err)
	}
	s.Close()
	if s = mustOpen(t, cfg); !s.InputEnded() {
		t.Error("a restart forgot the end of stdin")
	}
}

func TestInputWithoutStdin(t *testing.T) {
	s := mustCreate(t, testConfig(t))
	if _, err := s.Input(); !errdefs.IsNotFound(err) {
		t.Errorf("input without stdin: %v, want NotFound", err)
	}
	if s.InputEnded() {
		t.Error("what never began has ended")
	}
}
