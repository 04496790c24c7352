package gvisor

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// FuzzReply gives any bytes for the answer of a sandbox to each kind of call. The
// daemon gets a result or an error that has a class, and does not hang.
func FuzzReply(f *testing.F) {
	dir := f.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	replies := make(chan []byte)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			// The request is read to its end first, or closing would reset.
			buf := make([]byte, 4096)
			if _, err := conn.Read(buf); err == nil {
				_, _ = conn.Write(<-replies)
			}
			conn.Close()
		}
	}()
	for _, seed := range []string{
		`{"success":true,"err":"","result":7}`, `{"success":false,"err":"container c not found"}`, `{"success":true,"result":null}`,
		`{"success":true,"result":[{"pid":1,"ppid":0,"pgid":1}]}`, `{"success":true,"result":{"results":[{"value":"1","is_error":false}]}}`,
		``, `{`, `null`, `[]`, `{"success":true,"result":{"results":null}}`, `{"success":true,"result":99999999999999999999}`,
	} {
		for kind := range byte(4) {
			f.Add(kind, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, answer []byte) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		go func() { replies <- answer }()
		var err error
		switch c := controlSocket(socket); kind % 4 {
		case 0:
			var status uint32
			err = c.call(ctx, methodWait, "c", &status)
		case 1:
			var ps []guestProcess
			if err = c.call(ctx, methodProcesses, "c", &ps); err == nil {
				parentless(ps)
			}
		case 2:
			var r cgroupResults
			if err = c.call(ctx, methodReadCgroup, "c", &r); err == nil && len(r.Results) >= len(cgroupReads) {
				usageOf(r.Results)
			}
		case 3:
			var state int
			err = c.call(ctx, methodState, "c", &state)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal("it hung")
		}
		if err = classify(err); err != nil && !errors.Is(err, errdefs.ErrUnavailable) && !errors.Is(err, errdefs.ErrNotFound) &&
			!errors.Is(err, errdefs.ErrAlreadyExists) && !errors.Is(err, errdefs.ErrFailedPrecondition) &&
			!errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrInternal) {
			t.Errorf("an error without a class: %v", err)
		}
	})
}

// TestReplyWithoutEndIsBounded: a sandbox that has been taken over cannot fill the
// daemon's memory with one answer.
func TestReplyWithoutEndIsBounded(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan int)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write([]byte(`{"success":true,"err":"`))
		n, chunk := 0, bytes.Repeat([]byte("x"), 1<<20)
		for n < 64<<20 && err == nil {
			var more int
			more, err = conn.Write(chunk)
			n += more
		}
		sent <- n
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := classify(controlSocket(socket).call(ctx, methodState, "c", nil)); !errdefs.IsInternal(err) {
		t.Errorf("error %v", err)
	}
	if n := <-sent; n > maxReply+1<<20 { // of the socket's buffers
		t.Errorf("%d bytes were read", n)
	}
}
