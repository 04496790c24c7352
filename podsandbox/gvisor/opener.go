package gvisor

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/internal/idmap"
)

// While a gofer makes a container's mounts, it asks over its rpc-fd for what it is to
// mount: a file or directory, or for one with a mapping of ids a copy of its mount tree
// that is attached nowhere. A question is a request of the control protocol, and the
// answer carries one descriptor.

const methodOpenMount = "goferToHostRPC.OpenMount"

type openMountArgs struct {
	Mount *specs.Mount
	Flags uint32 // of mount(2)
}

// openMountResult is empty: what was opened travels beside it.
type openMountResult struct{}

// optionReadOnlyBelow is the OCI specification's: read-only with all mounts below.
const optionReadOnlyBelow = "rro"

// readOnlyBelow rewrites a bind with that option for the gofer, which knows it for
// trees with mapped ids alone: one with each id mapped to itself is meant then.
func readOnlyBelow(m *specs.Mount) {
	i := slices.Index(m.Options, optionReadOnlyBelow)
	if i < 0 {
		return
	}
	m.Options[i] = "ro"
	if len(m.UIDMappings) == 0 {
		ids := idmap.Identity()
		m.UIDMappings, m.GIDMappings = ids.UIDs, ids.GIDs
	}
}

// maxQuestion is how much of one question is read, in bytes. The largest has some
// hundred mappings of ids.
const maxQuestion = 256 << 10

// opener answers one gofer. It opens what the container's spec names and nothing
// else, whatever it is asked, and it does not do so without end: a gofer asks once
// for each mount.
type opener struct {
	conn   *net.UnixConn
	served []served

	// The namespace of the last mapping: all mounts of a pod have the same. Of
	// serve alone.
	last   idmap.Mapping
	userNS *os.File

	mu sync.Mutex
	// Why a mount could not be opened.
	err error // +checklocks:mu
}

// newOpener gives one end of a connection to the gofer to be.
func newOpener(d *donation, served []served) (*opener, error) {
	ours, theirs, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	d.give("rpc-fd", theirs)
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("open connection to gofer: %w", err)
	}
	return &opener{conn: conn.(*net.UnixConn), served: served}, nil
}

func (o *opener) close() { o.conn.Close() }

// serve answers until the gofer hangs up, which it does when its mounts are made.
// It works in the gofer's mount namespace, where what it opens can be mounted.
func (o *opener) serve(gofer *process) {
	defer o.close()
	defer func() { o.userNS.Close() }() // nil answers an error
	err := inMountNS(gofer, o.answerAll)
	if isLost(err) {
		err = fmt.Errorf("the gofer has ended: %w", errdefs.ErrUnavailable)
	}
	if err != nil {
		o.refuse(err) // it is over, without its mounts
	}
}

func (o *opener) answerAll() error {
	limited := &io.LimitedReader{R: o.conn}
	requests := json.NewDecoder(limited)
	for range 2 * (len(o.served) + 1) {
		limited.N = maxQuestion
		var r struct {
			Method string        `json:"method"`
			Arg    openMountArgs `json:"arg"`
		}
		if requests.Decode(&r) != nil {
			return nil
		}
		tree, err := o.open(r.Method, r.Arg)
		if err != nil {
			o.refuse(err)
		}
		if o.answer(tree, err) != nil {
			return nil
		}
	}
	return nil // hangs up on who asks without end
}

func (o *opener) answer(tree *os.File, err error) error {
	if err != nil {
		body, _ := json.Marshal(reply{Err: err.Error()})
		_, werr := o.conn.Write(body)
		return werr
	}
	defer tree.Close()
	fds, err := copyFDs([]*os.File{tree})
	if err != nil {
		return err
	}
	defer fds.close()
	result, err := json.Marshal(openMountResult{})
	if err != nil {
		return err
	}
	body, err := json.Marshal(reply{Success: true, Result: result})
	if err != nil {
		return err
	}
	return send(o.conn, body, fds)
}

func (o *opener) open(method string, arg openMountArgs) (*os.File, error) {
	if method != methodOpenMount || arg.Mount == nil {
		return nil, fmt.Errorf("gofer asks for %s: %w", quoted(method, maxQuote), errdefs.ErrInvalidArgument)
	}
	i := slices.IndexFunc(o.served, func(s served) bool { return s.mount.Source == arg.Mount.Source })
	if i < 0 {
		return nil, fmt.Errorf("gofer asks for %s, which its spec does not have: %w", quoted(arg.Mount.Source, maxQuote), errdefs.ErrInvalidArgument)
	}
	tree, err := o.openServed(o.served[i])
	if err != nil {
		return nil, fmt.Errorf("open mount %s: %w", o.served[i].destination, err)
	}
	return tree, nil
}

func (o *opener) openServed(s served) (*os.File, error) {
	source, err := s.openSource()
	if err != nil {
		return nil, err
	}
	ids := s.ids()
	if ids.IsZero() {
		return source, nil
	}
	defer source.Close()
	attr := idmap.Attributes{
		Recursive: slices.Contains(s.mount.Options, "rbind"),
		ReadOnly:  slices.Contains(s.mount.Options, "ro"),
	}
	if !ids.IsIdentity() {
		if attr.UserNS, err = o.namespace(ids); err != nil {
			return nil, err
		}
	}
	return idmap.CopyTree(source, attr)
}

// namespace returns a user namespace with a mapping; it stays the opener's.
func (o *opener) namespace(ids idmap.Mapping) (*os.File, error) {
	if o.userNS != nil && slices.Equal(o.last.UIDs, ids.UIDs) && slices.Equal(o.last.GIDs, ids.GIDs) {
		return o.userNS, nil
	}
	ns, err := idmap.UserNamespace(ids)
	if err != nil {
		return nil, err
	}
	o.userNS.Close()
	o.last, o.userNS = ids, ns
	return ns, nil
}

func (o *opener) refuse(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
}

// refusal is the first error that the gofer was answered with, or nil.
func (o *opener) refusal() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
