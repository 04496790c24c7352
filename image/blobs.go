package image

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// The metadata opens a blob's writer inside of a database transaction and
// forgets it when the commit fails, as it does on a full disk: the blob would
// stay locked as long as the process lives, and every later pull of it wait for
// ever. metaBlobs and diskBlobs, above and below the metadata, tell each other
// about such a writer through the context.

type openedWriter struct{}

// metaBlobs is the content store that pulls use.
type metaBlobs struct{ content.Store }

// Writer implements content.Ingester.
func (m metaBlobs) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var opened content.Writer
	w, err := m.Store.Writer(context.WithValue(ctx, openedWriter{}, &opened), opts...)
	if err != nil && opened != nil {
		_ = opened.Close()
	}
	return w, err
}

// diskBlobs is the content store that the metadata uses.
type diskBlobs struct{ content.Store }

// Writer implements content.Ingester. A download whose directory could not be
// filled in is removed: without its name in it, no collection recognises it.
func (d diskBlobs) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var want content.WriterOpts
	for _, o := range opts {
		if err := o(&want); err != nil {
			return nil, err
		}
	}
	w, err := d.Store.Writer(ctx, opts...)
	if err != nil {
		if !errdefs.IsUnavailable(err) && !errdefs.IsAlreadyExists(err) {
			_ = d.Abort(ctx, want.Ref)
		}
		return nil, err
	}
	crashpoint.Here("after blob ingest begins")
	if opened, ok := ctx.Value(openedWriter{}).(*content.Writer); ok {
		*opened = &freshWriter{Writer: w, abort: func() { _ = d.Abort(context.WithoutCancel(ctx), want.Ref) }}
	}
	return w, nil
}

// freshWriter is a writer that nobody has taken over. Closing it removes a
// download of which nothing has arrived yet.
type freshWriter struct {
	content.Writer
	abort func()
}

// Close implements io.Closer.
func (f *freshWriter) Close() error {
	st, err := f.Status()
	closeErr := f.Writer.Close()
	if err == nil && st.Offset == 0 {
		f.abort()
	}
	return closeErr
}
