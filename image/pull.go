package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"golang.org/x/sync/semaphore"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/keylock"
)

// pull is one running pull, shared by all callers that asked for the same name
// with the same credentials.
type pull struct {
	credentials Credentials
	cancel      context.CancelFunc
	done        chan struct{} // closed when img and err are set
	since       time.Time
	traffic     *traffic

	img Image
	err error

	// Guarded by puller.mu.
	callers int  // who wait for it
	dying   bool // the last caller went away
}

// puller owns the pulls: at most one of a name at a time.
type puller struct {
	opts      Options
	backend   *backend
	catalog   *catalog
	leases    *pullLeases
	collector *collector
	mounts    *mounter // flushes what was unpacked
	reserve   *reserve
	slots     *semaphore.Weighted // layers on the wire
	unpacking keylock.Locks       // by blob and chain: two pulls that share one fetch and unpack it once

	ctx  context.Context // ends with Close
	work *sync.WaitGroup // +checklocksignore: does not change; of the store

	mu sync.Mutex
	// By name.
	running map[string]*pull // +checklocks:mu
	closed  bool             // +checklocks:mu
}

// Pull gets an image from its registry, unpacks it and records its names; the
// registry is asked also when the image is there, so that a tag that moved is
// followed and access is checked. Callers that ask for the same at the same time
// share the work, which ends when the last of them has gone away.
//
// Errors: errdefs.ErrInvalidArgument (name, credentials, or an image that cannot
// be used), ErrNotFound, ErrUnauthenticated, ErrPermissionDenied, ErrUnavailable
// (registry out of reach), ErrFailedPrecondition (registry configuration, TLS),
// ErrResourceExhausted (disk full; nothing is left behind),
// context.DeadlineExceeded (no progress) and context.Canceled.
func (s *Store) Pull(ctx context.Context, ref string, creds *Credentials) (Image, error) {
	return s.pulls.pull(ctx, ref, creds)
}

func (p *puller) pull(ctx context.Context, ref string, creds *Credentials) (Image, error) {
	named, err := parseName(ref)
	if err != nil {
		return Image{}, err
	}
	keys, err := newKeychain(creds, reference.Domain(named))
	if err != nil {
		return Image{}, fmt.Errorf("pull image %s: %w", named, err)
	}
	var c Credentials
	if creds != nil {
		c = *creds
	}
	for {
		one, mine, err := p.join(ctx, named, c, keys)
		if err != nil {
			return Image{}, fmt.Errorf("pull image %s: %w", named, err)
		}
		select {
		case <-one.done:
			if mine {
				return one.img, one.err
			}
			// Not the same pull: its end was what we waited for.
		case <-ctx.Done():
			if mine {
				p.leave(one)
			}
			return Image{}, fmt.Errorf("pull image %s: %w", named, ctx.Err())
		}
	}
}

// join finds the running pull of a name or starts one. A pull that cannot be
// shared (other credentials, or about to end) is returned with mine false, to be
// waited for: pulls of one name go one after the other.
func (p *puller) join(ctx context.Context, named reference.Named, c Credentials, keys *keychain) (one *pull, mine bool, _ error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, fmt.Errorf("image store is closed: %w", errdefs.ErrUnavailable)
	}
	name := named.String()
	if one := p.running[name]; one != nil {
		if one.dying || one.credentials != c {
			return one, false, nil
		}
		one.callers++
		return one, true, nil
	}
	work, cancel := context.WithCancel(p.ctx)
	one = &pull{credentials: c, cancel: cancel, done: make(chan struct{}), since: time.Now(), traffic: newTraffic(), callers: 1}
	p.running[name] = one
	p.work.Go(func() {
		defer cancel()
		one.img, one.err = p.pullOnce(work, named, keys, one.traffic)
		p.mu.Lock()
		delete(p.running, name)
		p.mu.Unlock()
		close(one.done)
	})
	return one, true, nil
}

// leave is a caller going away; the last one ends the work.
func (p *puller) leave(one *pull) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.callers--; one.callers == 0 {
		one.dying = true
		one.cancel()
	}
}

// pullOnce runs one pull to its end and gives its error a class.
func (p *puller) pullOnce(ctx context.Context, named reference.Named, keys *keychain, t *traffic) (Image, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn := connect(ctx, p.opts.RegistryConfigDir, keys, t)
	defer conn.traffic.close()
	go conn.traffic.watch(ctx, p.opts.PullIdleTimeout, cancel)

	img, err := p.pullWith(ctx, named, conn)
	if err == nil {
		klog.V(2).InfoS("Pulled image", "image", named.String(), "id", img.ID, "received", t.received.Load(), "took", time.Since(t.start))
		return img, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if cause := context.Cause(ctx); cause == errStalled {
		err = fmt.Errorf("%w for %v", errStalled, p.opts.PullIdleTimeout)
	}
	class := classify(err)
	secrets := append(keys.secrets(), conn.traffic.secrets()...)
	text := errorText(err, secrets)
	if words := conn.traffic.refusal(); words != "" {
		text += " (registry: " + errorText(errors.New(words), secrets) + ")"
	}
	return Image{}, fmt.Errorf("pull image %s: %s%s: %w", named, text, advice(class), class)
}

// refuse lets no other pull begin.
func (p *puller) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}
