package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// callTimeout bounds a call whose context has no deadline of its own. The
// slowest calls (a start with many mounts) take some tens of milliseconds.
const callTimeout = 60 * time.Second

// maxReply is how much of a reply is read, in bytes: one that has been taken over
// must not fill the daemon, nor keep it busy. Most replies are empty or a number.
const maxReply = 64 << 10

// maxMessageFiles is how many descriptors a sandbox takes with one request: maxFiles of
// its pkg/urpc. The kernel throws away what is sent beyond, and where the sandbox then
// looks for it, it panics, and its pod ends.
const maxMessageFiles = 128

// errTooManyFiles is the error of a request that was not sent. No sandbox is asked more
// of than a pod's request says, so that is what is at fault.
var errTooManyFiles = fmt.Errorf("the request asks for more than fits into one message: %w", errdefs.ErrInvalidArgument)

// longReplies are the methods that answer with more.
var longReplies = map[string]int64{
	methodProcesses:  8 << 20,  // a hundred bytes each of the 65536 that a Sentry has at most
	methodReadCgroup: 1 << 20,  // three short texts for each container
	methodStacks:     16 << 20, // a kilobyte for each goroutine
}

func maxReplyTo(method string) int64 {
	if most, ok := longReplies[method]; ok {
		return most
	}
	return maxReply
}

// A control socket speaks one JSON object a request and one a reply, and
// descriptors travel beside the first bytes of a request. This is the protocol
// of gvisor.dev/gvisor/pkg/urpc, spoken here over the runtime's network poller:
// a parked Wait then costs a goroutine and no thread, and a deadline or the end
// of a context interrupts any call at once, also on a stopped sandbox.
type request struct {
	Method string `json:"method"`
	Arg    any    `json:"arg"`
}

type reply struct {
	Success bool            `json:"success"`
	Err     string          `json:"err"`
	Result  json.RawMessage `json:"result"`
}

// remoteError is an error that the sandbox answered with, made printable; the call
// reached it.
type remoteError struct{ message string }

func (e *remoteError) Error() string { return e.message }

// garbledError is an answer that is none. No sandbox gives one that is in order.
type garbledError struct{ what string }

func (e *garbledError) Error() string { return "the sandbox sent an invalid answer: " + e.what }

// controlSocket is the path of a sandbox's control socket.
type controlSocket string

// call sends one request and waits for its reply. Files are sent along and stay
// the caller's. An error is the context's, a *remoteError, a *garbledError, or means
// that the connection broke. A context without a deadline gets callTimeout.
func (s controlSocket) call(ctx context.Context, method string, arg, result any, files ...*os.File) error {
	if len(files) == 0 {
		return s.callWith(ctx, method, arg, result, nil)
	}
	fds, err := copyFDs(files)
	if err != nil {
		return err
	}
	defer fds.close()
	return s.callWith(ctx, method, arg, result, fds)
}

// callWith is call for descriptors that were copied before, by who may not have the
// files any more when it comes to sending them.
func (s controlSocket) callWith(ctx context.Context, method string, arg, result any, fds fdCopies) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	return s.park(ctx, method, arg, result, fds)
}

// park is callWith without a bound of its own, for calls that wait for an event.
func (s controlSocket) park(ctx context.Context, method string, arg, result any, fds fdCopies) error {
	err := s.exchange(ctx, method, arg, result, fds)
	if err == nil {
		return nil
	}
	// What broke the connection is the context, when it has ended. A connection has its
	// deadline, and may notice that a moment earlier than it does itself.
	if ctx.Err() != nil {
		err = ctx.Err()
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.DeadlineExceeded
	}
	return describeCall(method, err)
}

// describeCall says in plain words what went wrong. The names of the methods are
// nothing that a user knows.
func describeCall(method string, err error) error {
	var remote *remoteError
	var garbled *garbledError
	switch {
	case errors.As(err, &remote):
		what := methodWords[method]
		if what == "" {
			what = "answer " + method
		}
		return fmt.Errorf("the sandbox refused to %s: %w", what, err)
	case errors.As(err, &garbled), errors.Is(err, errTooManyFiles):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("the sandbox has not answered: %w", err)
	}
	return fmt.Errorf("reach the sandbox: %w", err)
}

func (s controlSocket) exchange(ctx context.Context, method string, arg, result any, fds fdCopies) error {
	if len(fds) > maxMessageFiles {
		return fmt.Errorf("%d descriptors, of which a sandbox takes %d: %w", len(fds), maxMessageFiles, errTooManyFiles)
	}
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	body, err := json.Marshal(request{Method: method, Arg: arg})
	if err != nil {
		return err
	}
	if err := send(conn, body, fds); err != nil {
		return err
	}
	r, err := readReply(conn, maxReplyTo(method))
	if err != nil {
		return err
	}
	if !r.Success {
		return &remoteError{quoted(r.Err, maxQuote)}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(r.Result, result); err != nil {
		return &garbledError{quoted(err.Error(), maxQuote)}
	}
	return nil
}

// readReply reads at most so many bytes.
func readReply(conn io.Reader, most int64) (reply, error) {
	var r reply
	limited := &io.LimitedReader{R: conn, N: most}
	err := json.NewDecoder(limited).Decode(&r)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return r, nil
	case limited.N <= 0:
		return r, &garbledError{fmt.Sprintf("more than %d bytes", most)}
	case errors.As(err, &syntax), errors.As(err, &kind):
		return r, &garbledError{quoted(err.Error(), maxQuote)}
	}
	return r, err
}

// listener returns the pid of the process that listens on the socket, as the kernel
// noted it when that began to; 0 if that is not known here, and -1 if it has ended.
func (s controlSocket) listener(ctx context.Context) (pid int, err error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	rc, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(fd uintptr) { pid, err = peerPID(int(fd)) })
	if err == nil {
		err = cerr
	}
	if err != nil {
		return 0, fmt.Errorf("find who listens: %w", err)
	}
	return pid, nil
}

// soPeerPidfd is SO_PEERPIDFD, since Linux 6.5.
const soPeerPidfd = 77

// peerPID is the pid of the process behind a connected Unix socket. Where the kernel has
// a pidfd for it, it is not that of a process that has ended and lent its pid to another.
func peerPID(sock int) (int, error) {
	pidfd, err := unix.GetsockoptInt(sock, unix.SOL_SOCKET, soPeerPidfd)
	switch err {
	case nil:
		defer unix.Close(pidfd)
		return pidOf(pidfd)
	case unix.ESRCH, unix.EINVAL:
		return -1, nil
	case unix.ENODATA:
		return 0, nil
	case unix.ENOPROTOOPT:
		peer, err := unix.GetsockoptUcred(sock, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return 0, err
		}
		return int(peer.Pid), nil
	}
	return 0, err
}

// pidOf reads the pid of a pidfd: -1 of a process that was reaped, 0 of one in another
// pid namespace; proc(5).
func pidOf(pidfd int) (int, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if n, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strconv.Atoi(strings.TrimSpace(n))
		}
	}
	return 0, fmt.Errorf("descriptor %d is no pidfd", pidfd)
}

// dial connects to the socket. A sandbox that is stopped accepts nothing: once
// its backlog is full the kernel refuses with EAGAIN, and only the context ends
// the attempts.
func (s controlSocket) dial(ctx context.Context) (*net.UnixConn, error) {
	for {
		conn, err := s.dialOnce(ctx)
		if err == nil || !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s controlSocket) dialOnce(ctx context.Context) (*net.UnixConn, error) {
	path, release, err := shortSocketPath(string(s))
	if err != nil {
		return nil, err
	}
	defer release()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// shortSocketPath returns a name of the path that fits into a socket address,
// which holds 107 bytes. The name is valid until release is called.
func shortSocketPath(path string) (name string, release func(), err error) {
	if len(path) < 108 {
		return path, func() {}, nil
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)), func() { unix.Close(dir) }, nil
}

// send writes a request; the descriptors go with its first bytes.
func send(conn *net.UnixConn, body []byte, fds fdCopies) error {
	sent := 0
	if len(fds) > 0 {
		n, _, err := conn.WriteMsgUnix(body, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		sent = n
	}
	if sent == len(body) {
		return nil // an empty write fails when the answer was quick
	}
	_, err := conn.Write(body[sent:])
	return err
}
