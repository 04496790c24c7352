package stream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// slowWriter takes longer for each write than the silence that drain allows.
type slowWriter struct {
	bytes.Buffer
	pause time.Duration
}

func (w *slowWriter) Write(b []byte) (int, error) {
	time.Sleep(w.pause)
	return w.Buffer.Write(b)
}

func TestDrainWritesAllToASlowClient(t *testing.T) {
	r, w, err := outputPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // somebody in the background holds it: no end is seen
	want := bytes.Repeat([]byte("x"), 60000)
	if _, err := w.Write(want); err != nil {
		t.Fatal(err)
	}
	last := make(chan struct{})
	close(last)
	out := &slowWriter{pause: 30 * time.Millisecond}
	if err := drain(out, r, last, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes, want %d", out.Len(), len(want))
	}
}

func TestDrainWaitsWhileItMay(t *testing.T) {
	r, w, err := outputPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	done := make(chan error)
	last := make(chan struct{})
	go func() { done <- drain(&out, r, last, time.Millisecond) }()
	select {
	case <-done:
		t.Fatal("it ended before the command")
	case <-time.After(50 * time.Millisecond): // many silences
	}
	io.WriteString(w, "words")
	w.Close()
	if err := <-done; err != nil || out.String() != "words" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestDrainTellsThatTheClientIsGone(t *testing.T) {
	r, w, err := outputPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	io.WriteString(w, "words")
	if err := drain(brokenWriter{}, r, make(chan struct{}), time.Second); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

// reads is a source that answers as it is told.
type reads []any // string or error

func (r *reads) Read(b []byte) (int, error) {
	next := (*r)[0]
	*r = (*r)[1:]
	if err, ok := next.(error); ok {
		return 0, err
	}
	return copy(b, next.(string)), nil
}

func (*reads) SetReadDeadline(time.Time) error { return nil }

// A deadline can pass while the daemon does other things: it says nothing of what
// there is to read.
func TestDrainLooksOnceMore(t *testing.T) {
	last := make(chan struct{})
	close(last)
	late := os.ErrDeadlineExceeded
	var out bytes.Buffer
	source := reads{late, "one ", late, "two", late, late, "never"}
	if err := drain(&out, &source, last, time.Millisecond); err != nil || out.String() != "one two" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
