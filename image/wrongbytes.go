package image

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// wrongBytes is a blob that is not what its digest says.
type wrongBytes struct{ err error }

func (e wrongBytes) Error() string {
	return "the registry sends other bytes than it announced: " + e.err.Error()
}
func (e wrongBytes) Unwrap() error { return e.err }

// fetchChecked fetches blobs, and goes on where an earlier pull was interrupted.
// When that ends in the wrong bytes they may be the earlier pull's: it begins
// anew, once.
func fetchChecked(blobs content.Store, fetcher remotes.Fetcher) images.Handler {
	fetch := remotes.FetchHandler(blobs, fetcher)
	return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		ref := remotes.MakeRefKey(ctx, desc)
		before, statusErr := blobs.Status(ctx, ref)
		children, err := fetch(ctx, desc)
		if errdefs.IsFailedPrecondition(err) && statusErr == nil && before.Offset > 0 {
			if abortErr := blobs.Abort(ctx, ref); abortErr == nil || errdefs.IsNotFound(abortErr) {
				children, err = fetch(ctx, desc)
			}
		}
		if errdefs.IsFailedPrecondition(err) {
			err = wrongBytes{err}
		}
		return children, err
	})
}
