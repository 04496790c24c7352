package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"k8s.io/klog/v2"
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

	// Guarded by Store.pullMu.
	callers int  // who wait for it
	dying   bool // the last caller went away
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
		p, mine, err := s.join(ctx, named, c, keys)
		if err != nil {
			return Image{}, fmt.Errorf("pull image %s: %w", named, err)
		}
		select {
		case <-p.done:
			if mine {
				return p.img, p.err
			}
			// Not the same pull: its end was what we waited for.
		case <-ctx.Done():
			if mine {
				s.leave(p)
			}
			return Image{}, fmt.Errorf("pull image %s: %w", named, ctx.Err())
		}
	}
}

// join finds the running pull of a name or starts one. A pull that cannot be
// shared (other credentials, or about to end) is returned with mine false, to be
// waited for: pulls of one name go one after the other.
func (s *Store) join(ctx context.Context, named reference.Named, c Credentials, keys *keychain) (p *pull, mine bool, _ error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	s.pullMu.Lock()
	defer s.pullMu.Unlock()
	if s.closed {
		return nil, false, fmt.Errorf("image store is closed: %w", errdefs.ErrUnavailable)
	}
	name := named.String()
	if p := s.pulls[name]; p != nil {
		if p.dying || p.credentials != c {
			return p, false, nil
		}
		p.callers++
		return p, true, nil
	}
	work, cancel := context.WithCancel(s.ctx)
	p = &pull{credentials: c, cancel: cancel, done: make(chan struct{}), since: time.Now(), traffic: newTraffic(), callers: 1}
	s.pulls[name] = p
	s.work.Go(func() {
		defer cancel()
		p.img, p.err = s.pullOnce(work, named, keys, p.traffic)
		s.pullMu.Lock()
		delete(s.pulls, name)
		s.pullMu.Unlock()
		close(p.done)
	})
	return p, true, nil
}

// leave is a caller going away; the last one ends the work.
func (s *Store) leave(p *pull) {
	s.pullMu.Lock()
	defer s.pullMu.Unlock()
	if p.callers--; p.callers == 0 {
		p.dying = true
		p.cancel()
	}
}

// pullOnce runs one pull to its end and gives its error a class.
func (s *Store) pullOnce(ctx context.Context, named reference.Named, keys *keychain, t *traffic) (Image, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn := s.connect(ctx, keys, t)
	defer conn.traffic.close()
	go conn.traffic.watch(ctx, s.opts.PullIdleTimeout, cancel)

	img, err := s.pullWith(ctx, named, conn)
	if err == nil {
		klog.V(2).InfoS("Pulled image", "image", named.String(), "id", img.ID, "received", t.received.Load(), "took", time.Since(t.start))
		return img, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if cause := context.Cause(ctx); cause == errStalled {
		err = fmt.Errorf("%w for %v", errStalled, s.opts.PullIdleTimeout)
	}
	class := classify(err)
	secrets := append(keys.secrets(), conn.traffic.secrets()...)
	text := errorText(err, secrets)
	if words := conn.traffic.refusal(); words != "" {
		text += " (registry: " + errorText(errors.New(words), secrets) + ")"
	}
	return Image{}, fmt.Errorf("pull image %s: %s%s: %w", named, text, advice(class), class)
}
